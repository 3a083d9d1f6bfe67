"""What happens, on stderr: one changing line on a terminal, plain lines elsewhere."""

import os
import sys
from typing import TYPE_CHECKING, TextIO

from veapi.units import format_size
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.api_pb2 import ImportProgress
    from veapi.v1.types_pb2 import VE
    from vectl.follow import Progress


_BAR = 20


def describe(ve: "VE") -> str:
    """`Running on h2, 10.66.0.5`, or `Pending: NoHostFits ...`."""
    status = ve.status
    where = f" on {status.host or ve.placement.host}" if status.host or ve.placement.host else ""
    address = f", {status.addresses[0]}" if status.addresses and status.state == "Running" else ""
    words = " ".join(part for part in (status.reason, status.message) if part)
    why = f": {words}" if words and status.state not in ("Running", "Stopped") else ""
    return one_line(f"{status.state}{where}{address}{why}")


def progress(stream: TextIO = sys.stderr) -> "Progress":
    """Fits the stream."""
    return Line(stream) if stream.isatty() else Lines(stream)


class Lines:
    """A line for each change of what is described."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: dict[str, str] = {}

    def show(self, ve: "VE", *, settled: int, total: int) -> None:
        del settled, total
        text = f"{ve.name}: {describe(ve)}"
        if self._last.get(ve.uid) != text:
            self._last[ve.uid] = text
            self._stream.write(text + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Nothing is left behind."""


class Line:
    """One line that is written over, and wiped at last."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, ve: "VE", *, settled: int, total: int) -> None:
        count = f"{settled}/{total} done · " if total > 1 else ""
        self.text(f"{count}{ve.name}: {describe(ve)}")

    def text(self, text: str) -> None:
        self._stream.write("\r\x1b[K" + text[: _width(self._stream) - 1])
        self._stream.flush()

    def close(self) -> None:
        self._stream.write("\r\x1b[K")
        self._stream.flush()


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class Meter:
    """How far an import is: a bar on a terminal, a line for each step elsewhere."""

    def __init__(self, stream: TextIO, size_bytes: int) -> None:
        self._line = Line(stream) if stream.isatty() else None
        self._stream = stream
        self._size_bytes = size_bytes
        self._step = ""

    def show(self, step: "ImportProgress") -> None:
        if self._line is not None:
            self._line.text(self.describe(step))
        elif step.step != self._step:
            self._step = step.step
            self._stream.write(one_line(step.step) + "\n")
            self._stream.flush()

    def describe(self, step: "ImportProgress") -> str:
        """`uploading [####......] 40% 12M/30M`, or `replicating 1/3 hosts`."""
        if step.hosts_wanted:
            return one_line(f"{step.step} {step.hosts_done}/{step.hosts_wanted} hosts")
        received = format_size(step.received_bytes)
        if not self._size_bytes:
            return one_line(f"{step.step} {received}")
        done = min(1.0, step.received_bytes / self._size_bytes)
        bar = "#" * int(done * _BAR) + "." * (_BAR - int(done * _BAR))
        total = format_size(self._size_bytes)
        return one_line(f"{step.step} [{bar}] {done:.0%} {received}/{total}")

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
