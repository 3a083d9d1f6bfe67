"""A story: what is asked and what goes wrong, and when; and how wide the margins are. Made from a seed, kept as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

LENGTH_S = 60.0
LEAST_FAULTS = 3
MOVE_AFTER = 12
"""M, in paces."""
FIRST = 4
"""VEs that are created at the beginning."""

OPERATIONS = {
    "create": 10,
    "fickle": 6,
    "delete": 4,
    "purge": 2,
    "undelete": 3,
    "regret": 5,
    "start": 4,
    "stop": 5,
    "freeze": 3,
    "restart": 6,
    "set": 5,
    "rename": 2,
    "clone": 2,
    "rebuild": 3,
    "snapshot": 5,
    "unsnapshot": 3,
    "restore": 3,
    "untag": 1,
    "prefetch": 1,
    "project": 1,
    "policy": 5,
    "disarm": 1,
    "arm": 1,
    "resume moves": 2,
}
FAULTS = {
    "controller dies": 4,
    "controller stops": 3,
    "agent dies": 6,
    "agent stops": 2,
    "host loses power": 3,
    "cut": 5,
    "cut one way": 3,
    "isolate": 3,
    "reset": 3,
    "slow path": 2,
    "leader loses etcd": 4,
    "etcd loses answers": 7,
    "etcd elects": 3,
    "etcd compacts": 3,
    "watch stands still": 6,
    "disk fails": 2,
    "step fails": 3,
    "step dawdles": 2,
    "guest dies": 3,
    "guest powers off": 2,
    "guest reboots": 1,
    "stubborn guests": 1,
    "clock jumps": 1,
    "fence dies": 5,
    "fence stands still": 3,
    "host freezes": 3,
    "host is lost": 6,
}


@dataclass(frozen=True, slots=True)
class Event:
    """Operation or fault `what`, at `at` seconds; `numbers` choose whom and how, each from 0 to 999."""

    at: float
    what: str
    numbers: tuple[int, int, int]

    @property
    def is_fault(self) -> bool:
        return self.what in FAULTS


@dataclass(frozen=True, slots=True)
class Knobs:
    """How this cluster is; drawn anew for each seed, so that no margin hides a mistake for long.

    `room`: VEs that a host has room for; `loss`: how likely a message to or from etcd is lost or late.
    """

    controllers: int = 2
    hosts: int = 3
    room: int = 4
    ids: int = 12
    names: int = 6
    replicas: int = 2
    keep_deleted_s: float = 86_400.0
    shuffle: bool = True
    base_s: float = 0.0003
    jitter_s: float = 0.001
    spike: float = 0.01
    spike_s: float = 0.3
    loss: float = 0.005
    rate_error: float = 0.01
    fenced: int = 0
    """Percent of the VEs that are made anew elsewhere when their host is lost."""
    pace: float = 1.0
    """Of the cluster's times (H, F, K, M)."""


@dataclass(frozen=True, slots=True)
class Story:
    seed: int
    knobs: Knobs
    events: tuple[Event, ...]
    length_s: float = LENGTH_S

    def with_events(self, events: Sequence[Event]) -> "Story":
        return replace(self, events=tuple(events))

    def dumps(self) -> str:
        """One line, that `loads` reads."""
        found = asdict(self)
        found["events"] = [[event.at, event.what, *event.numbers] for event in self.events]
        return json.dumps(found, separators=(",", ":"))


def loads(text: str) -> Story:
    found: dict[str, Any] = json.loads(text)
    events = tuple(Event(at, what, (a, b, c)) for at, what, a, b, c in found["events"])
    return Story(found["seed"], Knobs(**found["knobs"]), events, found["length_s"])


def make(seed: int) -> Story:
    """The story of a seed."""
    rng = Random(f"story {seed}")
    knobs = _knobs(rng)
    events = [*_operations(rng), *_faults(rng)]
    if knobs.fenced:
        knobs = replace(knobs, room=max(2, knobs.room))  # else nobody can be moved
        from sim.plots import losses  # noqa: PLC0415 - they are made of events

        events += losses(rng, MOVE_AFTER * knobs.pace)
    return Story(seed, knobs, tuple(sorted(events, key=lambda event: (event.at, event.what))))


def _knobs(rng: Random) -> Knobs:
    return Knobs(
        controllers=rng.choice((2, 2, 2, 3)),
        hosts=rng.choice((3, 3, 4)),
        room=rng.choice((1, 2, 2, 3, 5)),
        ids=rng.choice((5, 8, 16)),
        names=rng.choice((4, 6, 9)),
        replicas=rng.choice((1, 2, 3)),
        keep_deleted_s=rng.choice((0.0, 6.0, 20.0, 86_400.0)),
        shuffle=rng.random() < 0.8,
        base_s=rng.choice((0.0001, 0.0005, 0.005)),
        jitter_s=rng.choice((0.0005, 0.002, 0.02)),
        spike=rng.choice((0.0, 0.01, 0.05)),
        spike_s=rng.choice((0.1, 0.5, 1.5)),
        loss=rng.choice((0.0, 0.005, 0.02, 0.08)),
        pace=rng.choice((0.5, 1.0, 1.0, 1.5)),
        fenced=rng.choice((0, 60, 100, 100)),
    )


def _numbers(rng: Random) -> tuple[int, int, int]:
    return rng.randrange(1000), rng.randrange(1000), rng.randrange(1000)


def _of_first(rng: Random) -> tuple[int, int, int]:
    """Mostly of a VE that is there from the beginning, so that few are refused."""
    whom, how, where = _numbers(rng)
    return (whom % FIRST if rng.random() < 0.7 else whom), how, where


def _operations(rng: Random) -> list[Event]:
    """Creates come first, so that there is something to ask for."""
    count = rng.randint(15, 45)
    kinds, weights = list(OPERATIONS), list(OPERATIONS.values())
    found = [
        Event(round(rng.uniform(0, 8), 3), "create", (each, *_numbers(rng)[1:]))
        for each in range(FIRST)
    ]
    found += [
        Event(round(rng.uniform(4, LENGTH_S - 2), 3), what, _of_first(rng))
        for what in rng.choices(kinds, weights, k=count)
    ]
    if rng.random() < 0.5:  # a crowd that wants the same at one moment
        at = round(rng.uniform(10, LENGTH_S - 10), 3)
        what = rng.choice(
            ("create", "fickle", "restart", "snapshot", "undelete", "regret", "clone")
        )
        crowd = [_of_first(rng) for _ in range(6)]
        if rng.random() < 0.5:  # and of the same VE
            crowd = [(crowd[0][0], b, c) for _, b, c in crowd]
        found += [Event(at, what, numbers) for numbers in crowd]
    return found


def _faults(rng: Random) -> list[Event]:
    """A few kinds of them in each story, so that each kind meets itself too."""
    kinds = rng.sample(list(FAULTS), rng.randint(4, 9))
    weights = [FAULTS[kind] for kind in kinds]
    count = rng.randint(LEAST_FAULTS, 14)
    found = rng.choices(kinds, weights, k=count)
    return [Event(round(rng.uniform(3, LENGTH_S), 3), what, _numbers(rng)) for what in found]
