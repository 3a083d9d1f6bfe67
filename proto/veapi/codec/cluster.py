"""Hosts, images and the cluster's record."""

import msgspec

from veapi import model
from veapi.v1 import session_pb2, types_pb2


def resources_out(value: model.Resources) -> types_pb2.Resources:
    return types_pb2.Resources(
        cpu=value.cpu_millis / 1000,
        memory_bytes=value.memory_bytes,
        disk_bytes=value.disk_bytes,
        pids=value.pids,
    )


def resources_in(message: types_pb2.Resources) -> model.Resources:
    return model.Resources(
        cpu_millis=round(message.cpu * 1000),
        memory_bytes=message.memory_bytes,
        disk_bytes=message.disk_bytes,
        pids=message.pids,
    )


def image_config_out(value: model.ImageConfig) -> types_pb2.ImageConfig:
    return types_pb2.ImageConfig(
        command=value.command, env=dict(value.env), user=value.user, cwd=value.cwd
    )


def image_config_in(message: types_pb2.ImageConfig) -> model.ImageConfig:
    return model.ImageConfig(
        command=tuple(message.command),
        env=dict(message.env),
        user=message.user,
        cwd=message.cwd,
    )


def prefetch_out(value: model.Prefetch) -> types_pb2.Prefetch:
    return types_pb2.Prefetch(selector=value.selector, hosts=value.hosts)


def prefetch_in(message: types_pb2.Prefetch) -> model.Prefetch:
    return model.Prefetch(
        selector=message.selector, hosts=tuple(model.HostName(name) for name in message.hosts)
    )


def held_image_out(value: model.HeldImage) -> session_pb2.HeldImage:
    return session_pb2.HeldImage(
        digest=value.digest,
        blob_digest=value.blob_digest,
        size_bytes=value.size_bytes,
        blob_bytes=value.blob_bytes,
        config=image_config_out(value.config) if value.config != model.ImageConfig() else None,
    )


def held_image_in(message: session_pb2.HeldImage) -> model.HeldImage:
    return model.HeldImage(
        digest=model.Digest(message.digest),
        blob_digest=message.blob_digest,
        size_bytes=message.size_bytes,
        blob_bytes=message.blob_bytes,
        config=image_config_in(message.config),
    )


def facts_out(value: model.HostFacts) -> session_pb2.HostFacts:
    return session_pb2.HostFacts(
        boot_id=value.boot_id,
        version=value.version,
        labels=dict(value.labels),
        capacity=resources_out(value.capacity),
        address=value.address,
        peer_port=value.peer_port,
        metrics_address=value.metrics_address,
        images=[held_image_out(_without_config(image)) for image in value.images],
        refuses=value.refuses,
        fence=fence_out(value.fence) if value.fence != model.FenceFacts() else None,
        machine_id=value.machine_id,
    )


def fence_out(value: model.FenceFacts) -> session_pb2.FenceFacts:
    return session_pb2.FenceFacts(
        live=value.live,
        timing=timing_out(value.timing) if value.timing is not None else None,
        arming=value.arming,
        refuses=value.refuses,
    )


def fence_in(message: session_pb2.FenceFacts) -> model.FenceFacts:
    return model.FenceFacts(
        live=message.live,
        timing=timing_in(message.timing) if message.HasField("timing") else None,
        arming=message.arming,
        refuses=message.refuses,
    )


def _without_config(image: model.HeldImage) -> model.HeldImage:
    """The image's record has it; host/status would grow with every image."""
    return msgspec.structs.replace(image, config=model.ImageConfig())


def facts_in(message: session_pb2.HostFacts) -> model.HostFacts:
    return model.HostFacts(
        boot_id=message.boot_id,
        version=message.version,
        labels=dict(message.labels),
        capacity=resources_in(message.capacity),
        address=message.address,
        peer_port=message.peer_port,
        metrics_address=message.metrics_address,
        images=tuple(held_image_in(image) for image in message.images),
        refuses=message.refuses,
        fence=fence_in(message.fence),
        machine_id=message.machine_id,
    )


def timing_out(value: model.Timing) -> session_pb2.Timing:
    return session_pb2.Timing(
        heartbeat_s=value.heartbeat_s,
        fence_after_s=value.fence_after_s,
        kill_within_s=value.kill_within_s,
        move_after_s=value.move_after_s,
    )


def timing_in(message: session_pb2.Timing) -> model.Timing:
    return model.Timing(
        heartbeat_s=message.heartbeat_s,
        fence_after_s=message.fence_after_s,
        kill_within_s=message.kill_within_s,
        move_after_s=message.move_after_s,
    )


def network_out(value: model.Network) -> session_pb2.NetworkConfig:
    return session_pb2.NetworkConfig(
        name=value.name,
        cidr=value.cidr,
        gateway=value.gateway,
        gateway_mac=value.gateway_mac,
        vxlan_id=value.vxlan_id,
        vxlan_port=value.vxlan_port,
    )


def network_in(message: session_pb2.NetworkConfig) -> model.Network:
    return model.Network(
        name=message.name,
        cidr=message.cidr,
        gateway=message.gateway,
        gateway_mac=message.gateway_mac,
        vxlan_id=message.vxlan_id,
        vxlan_port=message.vxlan_port,
    )
