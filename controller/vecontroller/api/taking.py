"""What an import and a pull share: a host that takes the image in, and the others that get it from there."""

import asyncio
from collections.abc import AsyncIterator, Callable

from veapi.codec import held_image_in
from veapi.errors import Conflict, RemoteFailed, TimedOut, Unavailable, by_kind
from veapi.model import Digest, HeldImage, HostName, HostState
from veapi.v1 import api_pb2, session_pb2
from vecontroller.api.describe import holders
from vecontroller.api.ports import ApiDeps, Pipe
from vecontroller.api.splice import ended_early
from vecontroller.placement import committed
from vecontroller.view import View

SILENCE_S = 600.0
"""How long the host may say nothing: it unpacks."""
REPLICATED_WITHIN_S = 60.0
HOSTS_TRIED = 3
Response = api_pb2.ImportImageResponse


async def open_somewhere(deps: ApiDeps, first: session_pb2.RelayDown) -> tuple[HostName, Pipe]:
    """To the best host that can be reached; a few are tried."""
    failed: Unavailable | None = None
    for host in _receivers(deps)[:HOSTS_TRIED]:
        try:
            return host, await deps.relays.open(host, first)
        except Unavailable as error:
            failed = error
    raise failed or Conflict(
        "no host is Ready to take an image",
        hint="look at `vectl host list`; an import needs one host at least",
    )


def _receivers(deps: ApiDeps) -> list[HostName]:
    """Ready hosts, those that take new VEs and have the most disk that is not promised to one first; by name where equal."""
    view = deps.mirror.view
    return sorted(
        ready_hosts(deps),
        key=lambda name: (
            bool(view.hosts[name].value.refuses),
            -_free_disk_bytes(view, name),
            name,
        ),
    )


def ready_hosts(deps: ApiDeps) -> list[HostName]:
    hosts = sorted(deps.mirror.view.hosts)
    return [name for name in hosts if deps.hosts.host_state(name) is HostState.READY]


def _free_disk_bytes(view: View, host: HostName) -> int:
    return view.hosts[host].value.capacity.disk_bytes - committed(view, host).disk_bytes


async def taken(
    pipe: Pipe, host: HostName, show: Callable[[int], Response]
) -> AsyncIterator[Response | HeldImage]:
    """Progress as `show` makes it of the bytes that the host has, and at last the image. Raises what the host says."""
    while True:
        message = await _receive(pipe, host)
        match message.WhichOneof("frame"):
            case "upload_received_bytes":
                yield show(message.upload_received_bytes)
            case "upload_done":
                yield held_image_in(message.upload_done)
                return
            case _:
                raise _failed(message, host)


async def _receive(pipe: Pipe, host: HostName) -> session_pb2.RelayUp:
    try:
        async with asyncio.timeout(SILENCE_S):
            message = await pipe.receive()
    except TimeoutError:
        raise TimedOut(
            f"host {host} said nothing for {SILENCE_S:g} s", hint=f"look at veagent on {host}"
        ) from None
    if message is None:
        raise ended_early(host)
    return message


def _failed(message: session_pb2.RelayUp, host: HostName) -> Exception:
    if message.WhichOneof("frame") == "failure":
        failure = message.failure
        return by_kind(failure.kind, failure.message, failure.hint)
    return RemoteFailed(f"host {host} sent something unexpected", hint=f"update veagent on {host}")


async def replicated(deps: ApiDeps, digest: Digest, received_bytes: int) -> AsyncIterator[Response]:
    """Until all that shall hold it and are ready do, at most 60 s; says each step."""
    until, last = deps.clock.boot() + REPLICATED_WITHIN_S, (-1, -1)
    with deps.topic.subscribe() as changes:
        while True:
            wanted = deps.hosts.image_hosts(digest).intersection(ready_hosts(deps))
            done = len(wanted.intersection(holders(deps.mirror.view, digest)))
            if (done, len(wanted)) != last:
                last = (done, len(wanted))
                yield progress("replicating", received_bytes, done=done, wanted=len(wanted))
            if done == len(wanted):
                return
            try:
                async with asyncio.timeout(max(until - deps.clock.boot(), 0)):
                    await changes.next()
            except TimeoutError:
                return


def progress(step: str, received_bytes: int, *, done: int = 0, wanted: int = 0) -> Response:
    return Response(
        progress=api_pb2.ImportProgress(
            step=step, received_bytes=received_bytes, hosts_done=done, hosts_wanted=wanted
        )
    )
