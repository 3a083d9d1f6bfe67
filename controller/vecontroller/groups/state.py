"""A group as a person sees it, in one word and a reason: pure."""

from enum import StrEnum

from veapi.model import Group, GroupStatus, Value, VEState
from vecontroller.groups.member import Member, current, there
from vecontroller.groups.progress import complete
from vecontroller.groups.steps import stopped

_ON_ITS_WAY = (VEState.PENDING, VEState.CREATING, VEState.DELETING)


class GroupState(StrEnum):
    """READY: all as asked. DEGRADED: it was, and some VEs are not available now."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    STOPPED = "Stopped"
    DEGRADED = "Degraded"
    DELETING = "Deleting"


class Reason(Value, frozen=True, kw_only=True):
    """One CamelCase word, and what a person reads."""

    reason: str = ""
    message: str = ""


class Shown(Value, frozen=True, kw_only=True):
    """`ves`, `updated` and `available` count those that are there and not on their way out."""

    state: GroupState
    why: Reason
    ves: int
    updated: int
    available: int


def shown(
    group: Group, status: GroupStatus, members: list[Member], blocked: Reason | None
) -> Shown:
    """`blocked`: why the last step that was tried could not be done."""
    state, why = _state(group, status, members, blocked)
    staying = [each for each in members if not each.leaving]
    return Shown(
        state=state,
        why=why,
        ves=len(staying),
        updated=sum(current(each, group.current) for each in staying),
        available=sum(each.available for each in staying),
    )


def _state(
    group: Group, status: GroupStatus, members: list[Member], blocked: Reason | None
) -> tuple[GroupState, Reason]:
    why = blocked or waiting_for(group, members)
    if group.delete_requested_at is not None:
        return GroupState.DELETING, blocked or Reason()
    if complete(group, members) and len(members) == group.replicas:
        return GroupState.PAUSED if group.paused else GroupState.READY, Reason()
    if stopped(group, status):
        return GroupState.STOPPED, Reason(reason="ProgressDeadline", message=status.stopped_why)
    if group.paused:
        return GroupState.PAUSED, why
    settled = status.stable == group.current.number and len(members) == group.replicas
    if settled and not any(_coming(each) for each in members):
        return GroupState.DEGRADED, why
    return GroupState.PROGRESSING, why


def _coming(member: Member) -> bool:
    return member.state in _ON_ITS_WAY or member.reason in ("TooYoung", "NotCarriedOut")


def waiting_for(group: Group, members: list[Member]) -> Reason:
    """The first VE that is not available: one that has the current revision before all others."""
    down = [each for each in there(group, members) if not each.available]
    down.sort(key=lambda each: (not current(each, group.current), each.ordinal))
    if not down:
        return Reason()
    more = f" (and {len(down) - 1} more)" if len(down) > 1 else ""
    return Reason(reason=down[0].reason, message=f"{down[0].name}: {down[0].why}{more}")
