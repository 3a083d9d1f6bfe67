"""Losses of hosts, each with what makes it hard: one thing alone hides most mistakes."""

from collections.abc import Callable
from random import Random

from sim.story import FIRST, Event

CUT, DEAD = 1, 2
"""How a host is lost, as the third number of the fault: the network, the agent; 0: power."""
Numbers = tuple[int, int, int]


def losses(rng: Random, move_after_s: float) -> list[Event]:
    """One or two, one after the other, once there is something to lose."""
    found, at = [], rng.uniform(9, 18)
    for _ in range(rng.randint(1, 2)):
        plot = rng.choice(_PLOTS)
        found += [
            Event(round(at + after, 3), what, numbers)
            for after, what, numbers in plot(rng, rng.randrange(1000), move_after_s)
        ]
        at += rng.uniform(12, 28)
    return found


Beat = tuple[float, str, Numbers]
"""Seconds after the loss, what, and its numbers."""


def _loss(rng: Random, host: int, how: int, for_: int | None = None) -> Beat:
    lasts = rng.randrange(200, 1000) if for_ is None else for_
    return 0.0, "host is lost", (host, lasts, how)


def _plain(rng: Random, host: int, _move_s: float) -> list[Beat]:
    return [_loss(rng, host, rng.randrange(3))]


def _policy_turns(rng: Random, host: int, _move_s: float) -> list[Beat]:
    """Of VEs on a host that does not hear of it."""
    found = [_loss(rng, host, rng.randrange(3))]
    for ve in range(FIRST):
        first = rng.uniform(0.3, 2)
        found += [(first, "policy", (ve, 2, 0)), (first + rng.uniform(1, 2), "policy", (ve, 1, 0))]
    return found


def _armed_anew(rng: Random, host: int, _move_s: float) -> list[Beat]:
    """While a host does not hear of it."""
    return [
        _loss(rng, host, rng.randrange(3)),
        (rng.uniform(0.3, 1.5), "disarm", (0, 900, 0)),
        (rng.uniform(2, 3.5), "arm", (0, 0, 0)),
    ]


def _many(rng: Random, host: int, move_s: float) -> list[Beat]:
    """Two hosts at once; one of them comes back for sure, and somebody may give up the other."""
    found = [_loss(rng, host, DEAD, 900), (0.2, *_loss(rng, host + 1, rng.randrange(3), 250)[1:])]
    if rng.random() < 0.3:
        found.append((move_s + rng.uniform(0.5, 4), "resume moves", (0, 0, 0)))
    return found


def _blind(rng: Random, host: int, _move_s: float) -> list[Beat]:
    """vefence has been dead for a while."""
    return [(-5.0, "fence dies", (host, 999, 0)), _loss(rng, host, CUT)]


def _listless(rng: Random, host: int, _move_s: float) -> list[Beat]:
    """vefence begins anew, and nobody tells it anything."""
    return [_loss(rng, host, DEAD), (rng.uniform(0.5, 4), "fence dies", (host, 500, 2))]


def _back_at_that_moment(rng: Random, host: int, move_s: float) -> list[Beat]:
    """In which it is given up, and the store takes its time."""
    return [
        _loss(rng, host, CUT, rng.randrange(150, 280)),
        (move_s - rng.uniform(0.2, 0.8), "etcd loses answers", (1, rng.randrange(400, 1000), 350)),
    ]


def _agent_begins_anew(rng: Random, host: int, _move_s: float) -> list[Beat]:
    """And hears nobody."""
    return [_loss(rng, host, CUT), (rng.uniform(0.5, 5), "agent dies", (host, 150, 0))]


_PLOTS: tuple[Callable[[Random, int, float], list[Beat]], ...] = (
    _plain,
    _policy_turns,
    _armed_anew,
    _many,
    _blind,
    _listless,
    _back_at_that_moment,
    _agent_begins_anew,
)
