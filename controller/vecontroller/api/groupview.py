"""A group as people see it: what was asked, how far it is, and its VEs."""

from veapi import codec
from veapi.model import Group
from veapi.v1 import group_pb2
from vecontroller.groups.keeper import Keeper
from vecontroller.groups.member import Member, fits
from vecontroller.view import Held


class GroupView:
    """Reads the view as it is now."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def message(self, held: Held[Group], *, events: bool = False) -> group_pb2.Group:
        """`events`: with its VEs and what happened to it, which lists leave out."""
        group = held.value
        return group_pb2.Group(
            name=group.name,
            project=group.project,
            uid=group.uid,
            labels=dict(group.labels),
            generation=group.generation,
            resource_version=held.mod_revision,
            spec=_spec(group),
            status=self._status(held, events=events),
            created_at=codec.to_timestamp(group.created_at),
            delete_requested_at=codec.to_timestamp(group.delete_requested_at),
            revisions=[codec.revision_out(each) for each in group.revisions] if events else (),
        )

    def _status(self, held: Held[Group], *, events: bool) -> group_pb2.GroupStatus:
        group, shown = held.value, self._keeper.shown(held)
        message = group_pb2.GroupStatus(
            state=shown.state.value,
            reason=shown.why.reason,
            message=shown.why.message,
            ves=shown.ves,
            updated=shown.updated,
            available=shown.available,
            revision=group.current.number,
        )
        if events:
            told = self._keeper.status(group).events
            message.events.extend(codec.event_out(each, project=group.project) for each in told)
            message.members.extend(_member(group, each) for each in self._keeper.members(group))
        return message


def _spec(group: Group) -> group_pb2.GroupSpec:
    template = codec.template_out(group.current.template)
    for field in ("run", "ip", "host"):
        template.spec.ClearField(field)  # each VE has its own
    return group_pb2.GroupSpec(
        replicas=group.replicas,
        template=template,
        max_unavailable=group.max_unavailable,
        min_ready=group.min_ready_s,
        progress_deadline=group.progress_deadline_s,
        paused=group.paused,
    )


def _member(group: Group, member: Member) -> group_pb2.GroupMember:
    revisions = {each.number: each.template for each in group.revisions}
    own = revisions.get(member.ve.group_revision)
    return group_pb2.GroupMember(
        name=member.name,
        uid=member.uid,
        state=member.state.value,
        host=member.host,
        revision=member.ve.group_revision,
        available=member.available,
        message=member.why,
        drifted=own is not None and not fits(member.ve, own),
    )
