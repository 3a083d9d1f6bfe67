"""What a host must pass to get a VE: checks are data. Each has a mask over all hosts, and words for one that fails.

`plan`, `explain`, refusals and `capacity` use the same checks, so that what is said is what is done.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from veapi.model import HostState
from veapi.units import format_cpu, format_size
from vecontroller.placement.board import RESOURCES, Board, Bools, amounts
from vecontroller.placement.model import ASKED_FOR, Request


class When(Enum):
    """What may change whether a host passes while VEs are placed."""

    NEVER = "never"
    ROOM = "room"


class Check(Protocol):
    """One condition. `name` says what is checked, e.g. "memory"."""

    @property
    def name(self) -> str: ...

    @property
    def when(self) -> When: ...

    def passes(self, board: Board) -> Bools:
        """Shape (hosts,)."""
        ...

    def why(self, board: Board, host: int) -> str:
        """Of a host that fails, with numbers."""
        ...

    def change(self, board: Board, host: int) -> str:
        """What would make it pass there, as a wish: "free 2G of memory on h7"."""
        ...

    def effort(self, board: Board, host: int) -> float:
        """How large that change is, to compare by: the share of the host that is to be freed; else 1 or more."""
        ...

    def counted(self, board: Board, failing: Bools) -> list[str]:
        """Of all that fail, for the sum of a refusal: "31 too little memory (largest free 1.5G)"."""
        ...


def cores(millis: int) -> str:
    return f"{format_cpu(millis)} cores"


FORMAT: dict[str, Callable[[int], str]] = {
    "cpu": cores,
    "memory": format_size,
    "disk": format_size,
    "pids": str,
}


@dataclass(frozen=True, slots=True)
class Able:
    """The host answers, its agent is connected, and it takes VEs."""

    name: str = "state"
    when: When = When.NEVER

    def passes(self, board: Board) -> Bools:
        return board.able

    def why(self, board: Board, host: int) -> str:
        return state_word(board, host)

    def change(self, board: Board, host: int) -> str:
        return f"make {board.hosts[host].name} ready: {state_word(board, host)}"

    def effort(self, board: Board, host: int) -> float:
        del board, host
        return 2.0

    def counted(self, board: Board, failing: Bools) -> list[str]:
        words = Counter(state_word(board, int(host)) for host in np.flatnonzero(failing))
        return [f"{count} {word}" for word, count in sorted(words.items())]


@dataclass(frozen=True, slots=True)
class Pin:
    """The one host that it may be on."""

    host: str
    because: str
    name: str = "host"
    when: When = When.NEVER

    def passes(self, board: Board) -> Bools:
        mask = np.zeros(len(board.hosts), dtype=np.bool_)
        if self.host in board.index:
            mask[board.index[self.host]] = True
        return mask

    def why(self, board: Board, host: int) -> str:
        del board, host
        return f"only on {self.host}, {self.because}"

    def change(self, board: Board, host: int) -> str:
        del board, host
        return "ask for no host" if self.because == ASKED_FOR else "copy instead of clone"

    def effort(self, board: Board, host: int) -> float:
        del board, host
        return 3.0

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        return [f"{int(failing.sum())} not {self.host}, {self.because}"]


@dataclass(frozen=True, slots=True)
class Room:
    """Enough of one resource, by the ledger."""

    name: str
    wanted: int
    when: When = When.ROOM

    @property
    def _column(self) -> int:
        return RESOURCES.index(self.name)

    def passes(self, board: Board) -> Bools:
        return np.asarray(board.free[:, self._column] >= self.wanted, dtype=np.bool_)

    def why(self, board: Board, host: int) -> str:
        form, free = FORMAT[self.name], self._free(board, host)
        whole = int(board.capacity[host, self._column])
        lacks = f"{form(self.wanted - free)} too little"
        return f"free {form(max(free, 0))} of {form(whole)}, wanted {form(self.wanted)}: {lacks}"

    def change(self, board: Board, host: int) -> str:
        lacking = FORMAT[self.name](self.wanted - self._free(board, host))
        return f"free {lacking} of {self.name} on {board.hosts[host].name}"

    def effort(self, board: Board, host: int) -> float:
        """More than the host has at all can't be freed there."""
        whole = int(board.capacity[host, self._column])
        if self.wanted > whole:
            return 10.0 + self.wanted / max(whole, 1)
        return (self.wanted - self._free(board, host)) / max(whole, 1)

    def counted(self, board: Board, failing: Bools) -> list[str]:
        largest = max(int(board.free[failing, self._column].max()), 0)
        word = f"too little {self.name} (largest free {FORMAT[self.name](largest)})"
        return [f"{int(failing.sum())} {word}"]

    def _free(self, board: Board, host: int) -> int:
        return int(board.free[host, self._column])


def checks_of(request: Request) -> list[Check]:
    """All that a host must pass for it; in the order in which they are told."""
    pin: list[Check] = [Pin(request.host, request.host_why)] if request.host else []
    room = [
        Room(name, want) for name, want in zip(RESOURCES, amounts(request.resources), strict=True)
    ]
    return [*pin, *room, Able()]


def state_word(board: Board, host: int) -> str:
    """Why it is not able."""
    row = board.hosts[host]
    if host in board.lost:
        return "lost"
    match row.state:
        case HostState.SILENT:
            return "silent"
        case HostState.UNKNOWN:
            return "not heard of yet"
        case HostState.READY:
            return f"taking no new VEs ({row.refuses})" if row.refuses else "reconnecting"
