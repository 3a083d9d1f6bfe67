"""What a host must pass to get a VE, and what it should: whether it is able, what it has room for, and what was wished."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from veapi import selector
from veapi.errors import InvalidInput
from veapi.model import HostState
from veapi.units import format_cpu, format_size
from veapi.wishes import Among, among, preferred
from vecontroller.placement.board import RESOURCES, Board, Bools, amounts
from vecontroller.placement.check import Check, When
from vecontroller.placement.model import ASKED_FOR, PLANNED, Request
from vecontroller.placement.wishchecks import (
    Apart,
    Minded,
    Near,
    Require,
    Spread,
    Tolerate,
    Unreadable,
)

T = TypeVar("T")


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
class Fence:
    """Somebody there ends a fenced VE in time: without that it would not be started, nor could it ever be moved."""

    name: str = "fence"
    when: When = When.NEVER

    def passes(self, board: Board) -> Bools:
        return ~board.unfenced

    def why(self, board: Board, host: int) -> str:
        del board, host
        return "its vefence does not run"

    def change(self, board: Board, host: int) -> str:
        return f"start vefence on {board.hosts[host].name}"

    def effort(self, board: Board, host: int) -> float:
        del board, host
        return 2.0

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        return [f"{int(failing.sum())} whose vefence does not run"]


_UNPINNED = {ASKED_FOR: "ask for no host", PLANNED: "delete it and make a new plan"}


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
        return _UNPINNED.get(self.because, "copy instead of clone")

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
        return np.asarray(board.free[self._column] >= self.wanted, dtype=np.bool_)

    def why(self, board: Board, host: int) -> str:
        form, free = FORMAT[self.name], self._free(board, host)
        whole = int(board.capacity[self._column, host])
        lacks = f"{form(self.wanted - free)} too little"
        return f"free {form(max(free, 0))} of {form(whole)}, wanted {form(self.wanted)}: {lacks}"

    def change(self, board: Board, host: int) -> str:
        lacking = FORMAT[self.name](self.wanted - self._free(board, host))
        return f"free {lacking} of {self.name} on {board.hosts[host].name}"

    def effort(self, board: Board, host: int) -> float:
        """More than the host has at all can't be freed there."""
        whole = int(board.capacity[self._column, host])
        if self.wanted > whole:
            return 10.0 + self.wanted / max(whole, 1)
        return (self.wanted - self._free(board, host)) / max(whole, 1)

    def counted(self, board: Board, failing: Bools) -> list[str]:
        largest = max(int(board.free[self._column, failing].max()), 0)
        word = f"too little {self.name} (largest free {FORMAT[self.name](largest)})"
        return [f"{int(failing.sum())} {word}"]

    def left(self, board: Board, host: int) -> int:
        """What is free of it; never below 0."""
        return max(self._free(board, host), 0)

    def _free(self, board: Board, host: int) -> int:
        return int(board.free[self._column, host])


SOFT_TAINT_WEIGHT = 50
"""Of a taint that only keeps VEs away while others fit."""


@dataclass(frozen=True, slots=True)
class Checks:
    """`must`: all of them, in the order in which they are told. `should`: each costs its weight where it fails.

    `fixed`: hosts that pass all that placing VEs never changes, shape (hosts,).
    """

    must: tuple[Check, ...]
    should: tuple[tuple[Check, int], ...]
    fixed: Bools


def checks_of(board: Board, request: Request) -> Checks:
    """Of hosts for it."""
    pin: list[Check] = [Pin(request.host, request.host_why)] if request.host else []
    musts, shoulds = _of_hosts(request)
    fixed = board.able.copy()
    for check in (*pin, *musts):
        fixed &= check.passes(board)
    hard, soft = _of_company(board, request, fixed)
    room = [
        Room(name, want) for name, want in zip(RESOURCES, amounts(request.resources), strict=True)
    ]
    minded = minded_by(board, request)
    return Checks((*pin, *musts, *hard, *minded, *room, Able()), (*shoulds, *soft), fixed)


def minded_by(board: Board, request: Request) -> list[Check]:
    """Of what VEs that are there wish to be apart from. It changes with the VEs."""
    crowds = board.crowds
    return [
        Minded(
            each.wish,
            True,
            crowds.members(request.project, each.wish),
            each.most,
            crowds.holders(each),
        )
        for each in crowds.minded(request)
    ]


def _of_hosts(request: Request) -> tuple[list[Check], list[tuple[Check, int]]]:
    """Labels, taints and vefence. A wish that can't be read fails everywhere; one that need not come true is left out."""
    required = [_read(selector.terms, text) for text in request.require]
    must: list[Check] = [
        Tolerate(request.tolerate),
        *((Fence(),) if request.fenced else ()),
        *(
            Require(terms) if terms is not None else Unreadable(text)
            for terms, text in zip(required, request.require, strict=True)
        ),
    ]
    should: list[tuple[Check, int]] = [
        (Tolerate(request.tolerate, preferred=True), SOFT_TAINT_WEIGHT)
    ]
    for text in request.prefer:
        wish = _read(preferred, text)
        if wish is not None:
            should.append((Require(wish.match, name="prefer"), wish.weight))
    return must, should


def _of_company(
    board: Board, request: Request, fixed: Bools
) -> tuple[list[Check], list[tuple[Check, int]]]:
    must: list[Check] = []
    should: list[tuple[Check, int]] = []
    for kind in ("near", "apart", "spread"):
        for text in getattr(request, kind):
            wish = _read(partial(among, kind), text)
            if wish is None:
                must.append(Unreadable(text))
            elif wish.weight:
                should.append((_company(board, request, wish, fixed), wish.weight))
            else:
                must.append(_company(board, request, wish, fixed))
    return must, should


def _company(board: Board, request: Request, wish: Among, fixed: Bools) -> Check:
    own, crowd = wish.match(request.labels), board.crowds.members(request.project, wish)
    match wish.kind:
        case "near":
            return Near(wish, own, crowd)
        case "apart":
            return Apart(wish, own, crowd)
        case _:
            places = np.unique(crowd.domain.index[fixed])
            return Spread(wish, own, crowd, places[places < crowd.domain.nowhere])


def _read(read: Callable[[str], T], text: str) -> T | None:
    try:
        return read(text)
    except InvalidInput:
        return None


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
