"""Images between hosts: one host serves a blob, another fetches it, both by a ticket that the controller gave them.

A ticket is 128 random bits, told to both ends over their sessions and kept in memory only. It is good for 60 s, for one
use, for one image and for the one host whose certificate it names; without it nothing is streamed. So a host that was
taken over can't read images at will from the others.

The two sessions are not ordered: who fetches may be here before its ticket is. So a host that shows an unknown ticket
waits a little for it, and only so many wait at once; who is refused all the same asks for a new ticket after its back-off.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self

import grpc
import grpc.aio
import structlog

from veagent.ports import Images
from veapi import rpc
from veapi.channel import (
    SERVER_OPTIONS,
    Identity,
    Role,
    caller,
    host_name,
    open_channel,
    server_credentials,
)
from veapi.clock import Clock, SystemClock
from veapi.errors import Denied, InvalidInput, TimedOut, Unavailable, VerackError
from veapi.model import Digest
from veapi.v1 import session_pb2, session_pb2_grpc

log = structlog.get_logger()
TICKET_BYTES = 16
TICKET_GOOD_S = 60.0
GRANTS_LIMIT = 1024
STREAMS_LIMIT = 16
STALL_S = 30.0
TICKET_WAIT_S = 2.0
WAITERS_LIMIT = 64
_STOP_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class _Grant:
    ticket: bytes
    peer: str
    digest: Digest
    expires: float


class Grants:
    """The tickets that this host honours. Limited; the oldest goes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._grants: list[_Grant] = []
        self._news = asyncio.Event()
        self.waiting = 0

    def add(self, ticket: bytes, peer: str, digest: Digest) -> None:
        if len(ticket) != TICKET_BYTES:
            raise InvalidInput(
                f"a ticket has {len(ticket)} bytes, not {TICKET_BYTES}",
                hint="tickets come from the controller",
            )
        self._drop_expired()
        expires = self._clock.boot() + TICKET_GOOD_S
        self._grants.append(_Grant(ticket, peer, digest, expires))
        del self._grants[:-GRANTS_LIMIT]
        self._news.set()
        self._news = asyncio.Event()

    async def heard_of(self, ticket: bytes, *, patience_s: float) -> None:
        """Returns once this ticket is known, or after `patience_s`: `use` tells which. Beyond 64 who wait, at once."""
        if len(ticket) != TICKET_BYTES or self.waiting >= WAITERS_LIMIT:
            return
        self.waiting += 1
        try:
            async with asyncio.timeout(patience_s):
                while not self._found(ticket):
                    await self._news.wait()
        except TimeoutError:
            log.info("ticket did not come", seconds=patience_s)
        finally:
            self.waiting -= 1

    def use(self, ticket: bytes, peer: str, digest: str) -> None:
        """Takes the ticket away, whoever shows it. Denied unless it is good for exactly that peer and image."""
        self._drop_expired()
        found = self._found(ticket)
        self._grants = [g for g in self._grants if g not in found]
        if not any(g.peer == peer and g.digest == digest for g in found):
            raise Denied(
                "no such ticket for this host and image",
                hint="tickets are good for 60 s and one use; ask the controller for a new one",
            )

    def _found(self, ticket: bytes) -> list[_Grant]:
        """Every grant is compared, each in constant time: the time tells nothing of how near a guess was."""
        return [g for g in self._grants if hmac.compare_digest(g.ticket, ticket)]

    def _drop_expired(self) -> None:
        now = self._clock.boot()
        self._grants = [g for g in self._grants if g.expires > now]


class PeerServer:
    """Serves `PeerService` to the other hosts of the cluster. `async with` starts and stops it.

    `ticket_wait_s`: how long a host that shows an unknown ticket is kept waiting for it. `interceptors`: the server's.
    """

    def __init__(
        self,
        images: Images,
        identity: Identity,
        cluster: str,
        listen: str,
        *,
        clock: Clock | None = None,
        ticket_wait_s: float = TICKET_WAIT_S,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self._interceptors = interceptors
        self._ticket_wait_s = ticket_wait_s
        self._images = images
        self._identity = identity
        self._cluster = cluster
        self._listen = listen
        self._grants = Grants(clock or SystemClock())
        self._server: grpc.aio.Server | None = None
        self.port = 0

    @property
    def waiting(self) -> int:
        """Hosts that wait for their ticket to become known here."""
        return self._grants.waiting

    def grant(self, ticket: bytes, peer: str, digest: Digest) -> None:
        """Expect host `peer` with this ticket for that image, once within the next 60 s."""
        self._grants.add(ticket, peer, digest)

    async def start(self) -> None:
        """Listens; `port` is then known. Unavailable when the address is taken."""
        server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=self._interceptors)
        service = _PeerService(
            self._images, self._grants, self._cluster, ticket_wait_s=self._ticket_wait_s
        )
        session_pb2_grpc.add_PeerServiceServicer_to_server(service, server)
        try:
            self.port = server.add_secure_port(self._listen, server_credentials(self._identity))
        except RuntimeError:
            raise Unavailable(
                f"can't listen on {self._listen} for other hosts",
                hint="check [peer] listen, and what else listens there (`ss -ltnp`)",
            ) from None
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Cuts what still streams after 2 s."""
        if self._server is not None:
            await self._server.stop(_STOP_GRACE_S)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


_Call = grpc.aio.UnaryStreamCall[session_pb2.FetchImageRequest, session_pb2.FetchImageResponse]
_Context = grpc.aio.ServicerContext[session_pb2.FetchImageRequest, session_pb2.FetchImageResponse]


class _PeerService(session_pb2_grpc.PeerServiceServicer):
    def __init__(
        self, images: Images, grants: Grants, cluster: str, *, ticket_wait_s: float
    ) -> None:
        self._ticket_wait_s = ticket_wait_s
        self._images = images
        self._grants = grants
        self._cluster = cluster
        self._streams = 0

    # Writes instead of yielding: so a peer that takes nothing is noticed.
    async def FetchImage(  # type: ignore[override]  # noqa: N802 - named by the protocol
        self, request: session_pb2.FetchImageRequest, context: _Context
    ) -> None:
        try:
            peer = await self._admit(request, context)
            await self._send(Digest(request.digest), peer, context)
        except VerackError as error:
            log.warning("image was not given", digest=request.digest, error=error.message)
            await rpc.abort(context, error)

    async def _admit(self, request: session_pb2.FetchImageRequest, context: _Context) -> str:
        """Name of the host that calls. Denied unless it is one, and its ticket is good."""
        found = caller(context, self._cluster)
        if found.role is not Role.HOST:
            raise Denied(
                f"images are given to hosts, not to a {found.role.value}",
                hint="use `vectl image`",
            )
        await self._grants.heard_of(request.ticket, patience_s=self._ticket_wait_s)
        self._grants.use(request.ticket, found.name, request.digest)
        if self._streams >= STREAMS_LIMIT:
            raise Unavailable(
                f"this host already gives {STREAMS_LIMIT} images", hint="ask again later"
            )
        return found.name

    async def _send(self, digest: Digest, peer: str, context: _Context) -> None:
        self._streams += 1
        try:
            async for piece in self._images.read_blob(digest):
                async with asyncio.timeout(STALL_S):
                    await context.write(session_pb2.FetchImageResponse(chunk=piece))
            log.info("image was given", digest=digest, peer=peer)
        except TimeoutError:
            raise TimedOut(
                f"host {peer} took nothing for {STALL_S:g} s", hint="fetch it again"
            ) from None
        finally:
            self._streams -= 1


async def fetch_image(
    address: str, peer: str, cluster: str, identity: Identity, ticket: bytes, digest: Digest
) -> AsyncIterator[bytes]:
    """The blob of an image from host `peer` at `address` (host:port), in pieces of at most 1 MiB.

    Only a server with that host's certificate is accepted. Denied when the ticket is not good there, NotFound when the
    peer does not hold the image, Unavailable when it can't be reached, TimedOut when nothing comes for 30 s. The
    caller gives it to `Images.add` with `expect=digest`: what comes is not trusted.
    """
    request = session_pb2.FetchImageRequest(ticket=ticket, digest=digest)
    async with open_channel(address, server=host_name(peer, cluster), identity=identity) as channel:
        call = session_pb2_grpc.PeerServiceStub(channel).FetchImage(request)
        try:
            while True:
                async with asyncio.timeout(STALL_S):
                    piece = await _next_piece(call)
                if piece is None:
                    return
                yield piece
        except TimeoutError:
            raise TimedOut(
                f"host {peer} sent nothing for {STALL_S:g} s", hint="it is tried again"
            ) from None
        except grpc.aio.AioRpcError as error:
            refusal = rpc.from_rpc(error)
            refusal.hint = refusal.hint or f"it is tried again; see the agent's log on host {peer}"
            raise refusal from None
        finally:
            call.cancel()


async def _next_piece(call: "_Call") -> bytes | None:
    """None at the end."""
    response = await call.read()
    return response.chunk if isinstance(response, session_pb2.FetchImageResponse) else None
