"""Columns of text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vectl.text import one_line

T = TypeVar("T")
_GAP = "  "
_COLOURS = {
    "Running": "32",
    "Ready": "32",
    "Failed": "31",
    "Silent": "31",
    "Warning": "33",
    "Pending": "33",
    "Unknown": "33",
}


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A title and how a row fills it. `wide`: only in the wide form."""

    title: str
    value: Callable[[T], str]
    wide: bool = False


class Writer(Generic[T]):
    """Lays rows out. Widths stay as the first rows made them, so that rows which come later line up."""

    def __init__(self, columns: Sequence[Column[T]], *, wide: bool, colour: bool) -> None:
        self._columns = [column for column in columns if wide or not column.wide]
        self._colour = colour
        self._widths = [0] * len(self._columns)

    def lines(self, rows: Iterable[T], *, titles: bool) -> list[str]:
        """A line for each row; titles first when they are wanted."""
        cells = [[one_line(column.value(row)) or "-" for column in self._columns] for row in rows]
        if titles:
            cells.insert(0, [column.title for column in self._columns])
        for index, width in enumerate(self._widths):
            self._widths[index] = max([width, *(len(row[index]) for row in cells)])
        return [self._line(row) for row in cells]

    def _line(self, row: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)]
        painted = [
            self._paint(cell, text) for cell, text in zip(row, [*padded[:-1], row[-1]], strict=True)
        ]
        return _GAP.join(painted)

    def _paint(self, cell: str, padded: str) -> str:
        code = _COLOURS.get(cell)
        return f"\x1b[{code}m{padded}\x1b[0m" if self._colour and code else padded
