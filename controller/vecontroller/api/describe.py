"""Objects as people see them, out of the view and what is known beside it: refusals and heartbeats."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from veapi import codec
from veapi.model import (
    VE,
    Deleted,
    Digest,
    HostFacts,
    HostName,
    HostSpec,
    HostState,
    Image,
    Project,
    SnapshotStatus,
    SnapshotWish,
    Uid,
)
from veapi.v1 import types_pb2
from vecontroller import lifecycle
from vecontroller.api.ports import ApiDeps
from vecontroller.placement import committed, taints_of
from vecontroller.quota import NOTHING
from vecontroller.snapshotting import answered, taken
from vecontroller.view import Held, View

T = TypeVar("T")


class Describe:
    """Each method reads the view as it is now."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps

    @property
    def _view(self) -> View:
        return self._deps.mirror.view

    def ve(self, held: Held[VE], *, events: bool = False, snapshots: bool = True) -> types_pb2.VE:
        """`events`: with what happened to it, which lists leave out; `snapshots`: with these, which long lists leave out."""
        ve = held.value
        placement = self._view.placements.get(ve.uid)
        return types_pb2.VE(
            name=ve.name,
            project=ve.project,
            uid=ve.uid,
            labels=dict(ve.labels),
            generation=ve.generation,
            resource_version=held.mod_revision,
            spec=codec.spec_out(ve.spec),
            placement=codec.placement_out(placement.value) if placement else None,
            status=self._status(ve, events=events),
            created_at=codec.to_timestamp(ve.created_at),
            delete_requested_at=codec.to_timestamp(ve.delete_requested_at),
            image_digest=ve.image_digest,
            group=ve.group,
            group_revision=ve.group_revision,
            snapshots=self._snapshots(ve) if snapshots else (),
        )

    def _snapshots(self, ve: VE) -> Iterator[types_pb2.Snapshot]:
        return _snapshots(ve, taken(self._view, ve), answered(self._view, ve))

    def deleted(self, held: Held[Deleted]) -> types_pb2.VE:
        """A deleted VE that is kept, as it was and with the time of its end."""
        kept = held.value
        message = self.ve(Held(kept.ve, held.mod_revision, held.create_revision))
        message.placement.CopyFrom(codec.placement_out(kept.placement))
        message.status.CopyFrom(codec.status_out(lifecycle.deleted(kept)))
        message.delete_requested_at.CopyFrom(stamp(kept.deleted_at))
        message.purge_at.CopyFrom(stamp(kept.purge_at))
        del message.snapshots[:]
        message.snapshots.extend(_snapshots(kept.ve, kept.snapshots))
        return message

    def _status(self, ve: VE, *, events: bool) -> types_pb2.VEStatus:
        view, refusal = self._view, self._deps.scheduler.refusals.get(ve.uid)
        placement, status = _value(view.placements.get(ve.uid)), _value(view.statuses.get(ve.uid))
        state = self._deps.hosts.host_state(placement.host) if placement else HostState.UNKNOWN
        shown = lifecycle.displayed(
            *(ve, placement, status),
            refusal=refusal,
            host_state=state,
            waits=self._deps.waits().get(ve.uid),
        )
        answers = lifecycle.conditions(ve, placement, status, refusal=refusal, host_state=state)
        message = codec.status_out(shown)
        message.conditions.extend(
            types_pb2.Condition(
                type=each.type, status=each.status.value, reason=each.reason, message=each.message
            )
            for each in answers
        )
        del message.events[:]
        if events:
            message.events.extend(self.events(ve))
        return message

    def events(self, ve: VE) -> list[types_pb2.Event]:
        """Oldest first."""
        view = self._view
        found = lifecycle.events(
            ve,
            _value(view.placements.get(ve.uid)),
            _value(view.statuses.get(ve.uid)),
            self._deps.scheduler.refusals.get(ve.uid),
            self._deps.waits().get(ve.uid),
        )
        return [
            codec.event_out(event, project=ve.project, ve=ve.name, uid=ve.uid) for event in found
        ]

    def host(self, name: HostName, held: Held[HostFacts]) -> types_pb2.Host:
        facts, placed = held.value, self._view.placed_on.get(name, set())
        said = _value(self._view.host_specs.get(name)) or HostSpec()
        return types_pb2.Host(
            name=name,
            labels=dict(facts.labels),
            state=self._deps.hosts.host_state(name).value,
            capacity=codec.resources_out(facts.capacity),
            committed=codec.resources_out(committed(self._view, name)),
            address=facts.address,
            version=facts.version,
            boot_id=facts.boot_id,
            last_heartbeat_at=codec.to_timestamp(self._deps.hosts.last_heartbeat(name)),
            ves=len(placed),
            images=sorted(image.digest for image in facts.images),
            metrics_address=facts.metrics_address,
            taints=taints_of(self._view, name),
            room=codec.resources_out(self._deps.rules.room(facts)),
            machine_id=facts.machine_id,
            cordoned=said.cordoned,
            cordon_reason=said.cordon_reason,
            powered_off_at=codec.to_timestamp(said.powered_off_at),
            powered_off_by=said.powered_off_by,
        )

    def image(self, held: Held[Image]) -> types_pb2.Image:
        image = held.value
        return types_pb2.Image(
            digest=image.digest,
            tags=tags_of(self._view, image.digest),
            size_bytes=image.size_bytes,
            blob_bytes=image.blob_bytes,
            created_at=codec.to_timestamp(image.created_at),
            hosts=holders(self._view, image.digest),
            blob_digest=image.blob_digest,
            config=codec.image_config_out(image.config),
            wanted_on=sorted(self._deps.hosts.image_hosts(image.digest)),
            prefetch=codec.prefetch_out(image.prefetch),
        )

    def project(self, held: Held[Project]) -> types_pb2.Project:
        name = held.value.name
        return types_pb2.Project(
            name=name,
            created_at=codec.to_timestamp(held.value.created_at),
            ves=sum(project == name for project, _ in self._view.names),
            resource_version=held.mod_revision,
            quota=codec.amounts_out(held.value.quota),
            usage=codec.amounts_out(self._view.amounts.get(name, NOTHING)),
        )


def _snapshots(
    ve: VE, there: Iterable[SnapshotStatus], upto: int = 0
) -> Iterator[types_pb2.Snapshot]:
    """As asked for and as its host has them, oldest first; also those that the host has and nobody asks for any more.

    `upto`: the number up to which the host has answered.
    """
    wishes, found = {wish.seq: wish for wish in ve.snapshots}, {each.seq: each for each in there}
    for seq in sorted(wishes.keys() | found.keys()):
        wish, has = wishes.get(seq), found.get(seq)
        message = types_pb2.Snapshot(
            seq=seq, state=_snapshot_state(wish, has, answered=seq <= upto)
        )
        if wish is not None:
            message.tag, message.rule = wish.tag, wish.rule
            message.created_at.CopyFrom(stamp(wish.created_at))
        if has is None and message.state == "Failed":
            message.message = "its host has it no more"
        if has is not None:
            message.tag, message.size_bytes, message.message = has.tag, has.size_bytes, has.error
            message.created_at.CopyFrom(stamp(has.taken_at))
        yield message


def _snapshot_state(
    wish: SnapshotWish | None, has: SnapshotStatus | None, *, answered: bool
) -> str:
    if wish is not None and wish.deleting:
        return "Deleting"
    if has is None:
        return "Failed" if answered else "Creating"
    return "Failed" if has.error else "Ready"


def stamp(at: float) -> Timestamp:
    message = codec.to_timestamp(at)
    assert message is not None
    return message


def tags_of(view: View, digest: Digest) -> list[str]:
    return sorted(tag for tag, held in view.tags.items() if held.value == digest)


def holders(view: View, digest: Digest) -> list[HostName]:
    """Hosts that hold the image."""
    return sorted(
        name
        for name, held in view.hosts.items()
        if any(image.digest == digest for image in held.value.images)
    )


def users_of(view: View, digest: Digest) -> list[Held[VE]]:
    """VEs that were made of the image, also those that are being deleted."""
    return [held for held in view.ves.values() if held.value.image_digest == digest]


def uids_on(view: View, host: HostName) -> frozenset[Uid]:
    return frozenset(view.placed_on.get(host, ()))


def _value(held: Held[T] | None) -> T | None:
    return held.value if held is not None else None
