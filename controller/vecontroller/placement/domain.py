"""Hosts that have the same value of a label: what VEs are near, apart or spread over."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
V = TypeVar("V", str, tuple[str, ...])


class Domain(Generic[V]):
    """`index` is (hosts,): the place of each host's value in `names`; hosts without the label have the place after the last."""

    def __init__(self, values: Sequence[V | None]) -> None:
        self.names: list[V] = sorted({value for value in values if value is not None})
        places = {name: place for place, name in enumerate(self.names)}
        self.index = np.array([places.get(value, len(places)) for value in values], dtype=np.int64)  # type: ignore[arg-type]

    @cached_property
    def places(self) -> list[int]:
        """`index` as a list: numbers of Python are faster one by one."""
        found: list[int] = self.index.tolist()
        return found

    @property
    def nowhere(self) -> int:
        """The place of hosts without the label."""
        return len(self.names)

    def where(self, holds: Callable[[V | None], bool]) -> Bools:
        """Shape (hosts,): whether it holds of the host's value; None where there is none."""
        table = np.array([*(holds(name) for name in self.names), holds(None)], dtype=np.bool_)
        return np.asarray(table[self.index], dtype=np.bool_)

    def name(self, host: int) -> V | None:
        """The host's value."""
        place = int(self.index[host])
        return self.names[place] if place < len(self.names) else None

    def zeros(self) -> Ints:
        """A count for each value, and a last one for hosts without."""
        return np.zeros(len(self.names) + 1, dtype=np.int64)
