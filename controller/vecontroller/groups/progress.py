"""Whether a rollout comes along: pure. It is stopped when for too long no further VE has become available with it."""

from veapi.model import Group, GroupStatus, Value
from vecontroller.groups.member import Member, current, there
from vecontroller.groups.steps import stopped


class Track(Value, frozen=True, kw_only=True):
    """The furthest that a rollout has come, and since when (boot time, in seconds). `rollout` tells two of them apart."""

    rollout: tuple[int, int, int]
    best: int
    since: float


def done(group: Group, members: list[Member]) -> int:
    """How many VEs have the current revision and are available with it, or are held down on purpose."""
    return sum(
        current(each, group.current) and (each.available or each.held_down)
        for each in there(group, members)
    )


def complete(group: Group, members: list[Member]) -> bool:
    return done(group, members) == group.replicas


def tracked(before: Track | None, group: Group, members: list[Member], now: float) -> Track:
    """A VE that comes and goes is no progress, so only the best counts."""
    rollout = (group.current.number, group.tries, group.generation)
    far = done(group, members)
    if before is None or before.rollout != rollout or far > before.best:
        return Track(rollout=rollout, best=far, since=now)
    return before


def deadline(group: Group, status: GroupStatus, track: Track) -> float | None:
    """When the rollout is given up unless something happens; None: it is not under way."""
    rolling = status.stable != group.current.number
    if not rolling or group.paused or stopped(group, status) or group.delete_requested_at:
        return None
    return track.since + group.progress_deadline_s
