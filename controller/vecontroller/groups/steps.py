"""What is to be done next for a group: pure. From the group and its VEs to steps, which may all be done at once.

Missing VEs are made and surplus ones removed at once, as somebody asked for that number. Those that are there are changed
a few at a time: one that is available only while, with it, no more than `max_unavailable` would be missing or unavailable;
one that is not available anyway costs nobody anything, but of these too no more are tried at a time. So a template that
does not work takes down at most that many, and an undo repairs these first. The highest ordinal comes first.

A rollout that is paused or was stopped changes nobody. What is missing is made all the same: as it was last known to work.
"""

import math
from typing import TypeAlias

from veapi.model import Group, GroupStatus, Revision, Uid, Value
from vecontroller.groups.member import Member, current, fits, there

STEPS_LIMIT = 100
"""At a time; the rest follows when these are done."""


class Make(Value, frozen=True, kw_only=True):
    ordinal: int
    revision: int


class Change(Value, frozen=True, kw_only=True):
    """Gives a VE that revision. `uid` is that of the VE which was looked at."""

    ordinal: int
    revision: int
    uid: Uid


class Remove(Value, frozen=True, kw_only=True):
    ordinal: int
    uid: Uid


class Release(Value, frozen=True, kw_only=True):
    """The VE belongs to no group any more."""

    ordinal: int
    uid: Uid


class Forget(Value, frozen=True, kw_only=True):
    """The group goes: it has no VEs any more."""


Step: TypeAlias = Make | Change | Remove | Release | Forget


def next_steps(group: Group, status: GroupStatus, members: list[Member]) -> tuple[Step, ...]:
    """None when everything is as asked, or something must happen first."""
    if group.delete_requested_at is not None:
        return _ending(group, members)
    found = [*_surplus(group, members), *_missing(group, status, members)]
    if not halted(group, status):
        found += _outdated(group, members)
    return tuple(found[:STEPS_LIMIT])


def halted(group: Group, status: GroupStatus) -> bool:
    """Whether VEs that are there are left as they are."""
    return group.paused or stopped(group, status)


def stopped(group: Group, status: GroupStatus) -> bool:
    """Whether this rollout was given up; a new template, or another try, is another rollout."""
    return (status.stopped_revision, status.stopped_try) == (group.current.number, group.tries)


def budget(group: Group) -> int:
    """How many VEs may be unavailable at one time."""
    share = group.max_unavailable.removesuffix("%")
    if share == group.max_unavailable:
        return int(share)
    return max(1, math.floor(group.replicas * int(share) / 100))


def revision_for_new(group: Group, status: GroupStatus) -> Revision:
    """The current one; while that is halted, the last one that was known to work."""
    if halted(group, status):
        known = [each for each in group.revisions if each.number == status.stable]
        return known[0] if known else group.current
    return group.current


def _ending(group: Group, members: list[Member]) -> tuple[Step, ...]:
    if group.keep_ves:
        found: list[Step] = [Release(ordinal=each.ordinal, uid=each.uid) for each in members]
    else:
        found = [Remove(ordinal=each.ordinal, uid=each.uid) for each in members if not each.leaving]
    return tuple(found[:STEPS_LIMIT]) if members else (Forget(),)


def _surplus(group: Group, members: list[Member]) -> list[Step]:
    surplus = [each for each in members if each.ordinal >= group.replicas and not each.leaving]
    return [Remove(ordinal=each.ordinal, uid=each.uid) for each in _highest_first(surplus)]


def _missing(group: Group, status: GroupStatus, members: list[Member]) -> list[Step]:
    taken = {each.ordinal for each in members}
    number = revision_for_new(group, status).number
    return [
        Make(ordinal=ordinal, revision=number)
        for ordinal in range(group.replicas)
        if ordinal not in taken
    ]


def _outdated(group: Group, members: list[Member]) -> list[Step]:
    revision, counted = group.current, there(group, members)
    old = _highest_first([each for each in counted if not current(each, revision)])
    free = [each for each in old if fits(each.ve, revision.template)]
    rest = [each for each in old if not fits(each.ve, revision.template)]
    down = [each for each in rest if not each.available]
    up = [each for each in rest if each.available]
    trying = [
        each
        for each in counted
        if not each.available and not each.held_down and current(each, revision)
    ]
    chosen = down[: max(0, budget(group) - len(trying))]
    unavailable = group.replicas - sum(each.available for each in counted)
    chosen += up[: max(0, budget(group) - unavailable)]
    return [
        Change(ordinal=each.ordinal, revision=revision.number, uid=each.uid)
        for each in [*free, *chosen]
    ]


def _highest_first(members: list[Member]) -> list[Member]:
    return sorted(members, key=lambda each: -each.ordinal)
