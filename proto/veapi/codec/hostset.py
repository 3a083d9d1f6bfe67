"""What a host is told, and what it tells."""

from typing import TYPE_CHECKING

import msgspec

from veapi import model
from veapi.codec.cluster import network_in, network_out, resources_in, resources_out
from veapi.codec.ve import (
    root_in,
    root_out,
    snapshot_status_in,
    snapshot_status_out,
    snapshot_wish_in,
    snapshot_wish_out,
    spec_in,
    spec_out,
    status_in,
    status_out,
)
from veapi.v1 import session_pb2, types_pb2

if TYPE_CHECKING:
    from veapi.v1 import store_pb2


def order_out(value: model.Order) -> session_pb2.Order:
    return session_pb2.Order(
        incarnation=value.incarnation, epoch=value.epoch, revision=value.revision
    )


def order_in(message: session_pb2.Order) -> model.Order:
    return model.Order(
        incarnation=message.incarnation, epoch=message.epoch, revision=message.revision
    )


_ACTION_OUT = {
    model.Action.RUN: session_pb2.SetEntry.ACTION_RUN,
    model.Action.STOP: session_pb2.SetEntry.ACTION_STOP,
    model.Action.RELEASE: session_pb2.SetEntry.ACTION_RELEASE,
    model.Action.PURGE: session_pb2.SetEntry.ACTION_PURGE,
    model.Action.FREEZE: session_pb2.SetEntry.ACTION_FREEZE,
    model.Action.KEEP: session_pb2.SetEntry.ACTION_KEEP,
}


_ACTION_IN = {out: action for action, out in _ACTION_OUT.items()}


def entry_out(value: model.SetEntry) -> session_pb2.SetEntry:
    return session_pb2.SetEntry(
        uid=value.uid,
        name=value.name,
        project=value.project,
        action=_ACTION_OUT[value.action],
        spec=spec_out(value.spec),
        generation=value.generation,
        placement_generation=value.placement_generation,
        restart_seq=value.restart_seq,
        stop_timeout_s=value.stop_timeout_s,
        image_digest=value.image_digest,
        ip=value.ip,
        mac=value.mac,
        labels=dict(value.labels),
        root=root_out(value.root),
        snapshots=[snapshot_wish_out(wish) for wish in value.snapshots],
        run_generation=value.run_generation,
        policy_generation=value.policy_generation,
        root_since=value.root_since,
    )


def entry_in(message: session_pb2.SetEntry) -> model.SetEntry:
    return model.SetEntry(
        uid=model.Uid(message.uid),
        name=message.name,
        project=message.project,
        action=_ACTION_IN[message.action],
        spec=spec_in(message.spec),
        generation=message.generation,
        placement_generation=message.placement_generation,
        restart_seq=message.restart_seq,
        stop_timeout_s=message.stop_timeout_s,
        image_digest=model.Digest(message.image_digest),
        ip=message.ip,
        mac=message.mac,
        labels=dict(message.labels),
        root=root_in(message.root),
        snapshots=tuple(snapshot_wish_in(wish) for wish in message.snapshots),
        run_generation=message.run_generation,
        policy_generation=message.policy_generation,
        root_since=message.root_since,
    )


def host_set_out(value: model.HostSet) -> session_pb2.HostSet:
    return session_pb2.HostSet(
        order=order_out(value.order),
        entries=[entry_out(entry) for entry in value.entries],
        peers=[session_pb2.PeerHost(name=peer.name, address=peer.address) for peer in value.peers],
        network=network_out(value.network),
        images=[
            session_pb2.SetImage(
                digest=image.digest, blob_digest=image.blob_digest, spare=image.spare
            )
            for image in value.images
        ],
        arming=value.arming,
        disarmed=value.disarmed,
        unconfirmed=value.unconfirmed,
    )


def host_set_in(message: session_pb2.HostSet) -> model.HostSet:
    return model.HostSet(
        order=order_in(message.order),
        entries=tuple(entry_in(entry) for entry in message.entries),
        peers=tuple(model.PeerHost(name=peer.name, address=peer.address) for peer in message.peers),
        network=network_in(message.network),
        images=tuple(
            model.WantedImage(
                digest=model.Digest(image.digest),
                blob_digest=image.blob_digest,
                spare=image.spare,
            )
            for image in message.images
        ),
        arming=message.arming,
        disarmed=message.disarmed,
        unconfirmed=message.unconfirmed,
    )


def report_out(value: model.VEReport) -> session_pb2.VEReport:
    return session_pb2.VEReport(
        uid=value.uid,
        name=value.name,
        project=value.project,
        status=status_out(value.status),
        gone=value.gone,
        orphan=value.orphan,
        observed_restart_seq=value.status.observed_restart_seq,
        kept=value.kept,
        entry=entry_out(value.entry) if value.entry is not None else None,
        observed_root_seq=value.status.observed_root_seq,
        observed_snapshot_seq=value.status.observed_snapshot_seq,
        in_force=in_force_out(value.status),
        snapshots=[snapshot_status_out(snapshot) for snapshot in value.status.snapshots],
    )


def report_in(message: session_pb2.VEReport) -> model.VEReport:
    return model.VEReport(
        uid=model.Uid(message.uid),
        name=message.name,
        project=message.project,
        status=beside(message, status_in(message.status, message.observed_restart_seq)),
        gone=message.gone,
        orphan=message.orphan,
        kept=message.kept,
        entry=entry_in(message.entry) if message.HasField("entry") else None,
    )


def beside(
    message: "session_pb2.VEReport | store_pb2.StoredVEStatus", status: model.VEStatus
) -> model.VEStatus:
    """The status with what travels beside it."""
    told = message.observed_root_seq or message.observed_snapshot_seq or message.snapshots
    if not (told or message.HasField("in_force")):
        return status
    return msgspec.structs.replace(
        status,
        observed_root_seq=message.observed_root_seq,
        observed_snapshot_seq=message.observed_snapshot_seq,
        snapshots=tuple(snapshot_status_in(snapshot) for snapshot in message.snapshots),
        in_force=resources_in(message.in_force),
    )


def in_force_out(status: model.VEStatus) -> types_pb2.Resources | None:
    """Nothing for nothing."""
    return resources_out(status.in_force) if status.in_force != model.Resources() else None
