"""Keeps a session open with the controller that leads: tries them in turn, follows the leader's address."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import structlog

from veagent.heartbeat import Lease
from veagent.manager import Manager
from veagent.session import Granter, Session
from veagent.sources import SourceDesk
from veagent.streams import Relays
from veagent.targets import Targets
from veapi.channel import Identity, controller_name, open_channel
from veapi.errors import VerackError
from veapi.rpc import from_rpc
from veapi.v1 import session_pb2_grpc

if TYPE_CHECKING:
    Stub = session_pb2_grpc.AgentServiceAsyncStub

log = structlog.get_logger()
BACKOFF_LIMIT_S = 2.0
HASTE_LIMIT_S = 0.8
HASTE_TRIES = 15
# What grpc says when a refusal overtook our first write: the refusal itself, with the leader's address, is lost.
_ANSWER_LOST = "Internal error from Core"
_LEADER_KEY = "verack-leader"


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """`controllers` are host:port or unix:/path."""

    controllers: Sequence[str]
    cluster: str
    identity: Identity


Dial = Callable[[str], AbstractAsyncContextManager["Stub"]]
"""Opens the service of the controller at a target, for as long as the context."""


def dialling(settings: LinkSettings) -> Dial:
    """Over gRPC; only a server whose certificate says that it is a controller of the cluster is talked to."""
    server = controller_name(settings.cluster)

    @asynccontextmanager
    async def dial(target: str) -> "AsyncIterator[Stub]":
        async with open_channel(target, server=server, identity=settings.identity) as channel:
            yield session_pb2_grpc.AgentServiceStub(channel)

    return dial


class Link:
    """For ever: a session, and the next one when it ends. `dial`: what it is dialled with, else gRPC."""

    def __init__(
        self,
        settings: LinkSettings,
        *,
        manager: Manager,
        lease: Lease,
        sources: SourceDesk,
        granter: Granter,
        relays: Relays,
        dial: Dial | None = None,
    ) -> None:
        self._cluster = settings.cluster
        self._dial = dial or dialling(settings)
        self._manager = manager
        self._lease = lease
        self._sources = sources
        self._granter = granter
        self._relays = relays
        self._targets = Targets(settings.controllers)
        self._failures = 0
        self._hopping = False
        self.connected = False

    async def run(self) -> None:
        while True:
            target = self._targets.next(now=self._manager.clock.boot())
            ending = await self._one_session(target)
            self.connected = False
            self._take(ending, of=target)
            self._failures += 1
            await self._manager.clock.sleep(self._pause_s())

    def _take(self, ending: "_Ending", *, of: str) -> None:
        now = self._manager.clock.boot()
        if ending.answer_lost:
            self._targets.again(of)
        elif ending.leader is not None:
            self._targets.refused(of, leader=ending.leader, now=now)
        else:
            self._targets.failed(of, now=now)

    def _pause_s(self) -> float:
        """Up to 0.8 s while a new leader is to be expected, later up to 2 s; and never the same for all hosts.

        None before the first of those that were named.
        """
        self._hopping = self._targets.leader_named and not self._hopping
        if self._hopping:
            return 0.0
        limit_s = HASTE_LIMIT_S if self._failures <= HASTE_TRIES else BACKOFF_LIMIT_S
        most = min(limit_s, 0.1 * 2 ** min(self._failures, 10))
        return random.uniform(most / 2, most)  # noqa: S311  # jitter, no secret

    def _welcomed(self) -> None:
        self._failures = 0
        self.connected = True

    async def _one_session(self, target: str) -> "_Ending":
        """Until it ends."""
        try:
            async with self._dial(target) as stub:
                session = Session(
                    stub,
                    cluster=self._cluster,
                    manager=self._manager,
                    lease=self._lease,
                    sources=self._sources,
                    granter=self._granter,
                    dial_back=lambda ticket: self._relays.open(target, ticket),
                )
                await session.run(welcomed=self._welcomed)
        except (VerackError, grpc.aio.AioRpcError, ExceptionGroup) as error:
            return _told(target, error)
        return _Ending()


@dataclass(frozen=True, slots=True)
class _Ending:
    """`leader`: its address as a controller that does not lead told it, may be empty; None when none told anything."""

    leader: str | None = None
    answer_lost: bool = False


def _told(target: str, error: Exception) -> _Ending:
    """Says in the log why a session ended."""
    cause = _first(error, lambda e: isinstance(e, grpc.aio.AioRpcError)) or _first(
        error, lambda e: isinstance(e, VerackError)
    )
    if isinstance(cause, grpc.aio.AioRpcError):
        shown = from_rpc(cause)
        log.warning("session ended", controller=target, error=shown.message, hint=shown.hint)
        leader = dict(cause.trailing_metadata() or ()).get(_LEADER_KEY)
        return _Ending(
            leader=leader.decode() if isinstance(leader, bytes) else leader,
            answer_lost=cause.details() == _ANSWER_LOST,
        )
    if isinstance(cause, VerackError):
        log.warning("session ended", controller=target, error=cause.message, hint=cause.hint)
        return _Ending()
    log.error("session ended unexpectedly", controller=target, exc_info=error)
    return _Ending()


def _first(error: BaseException, wanted: Callable[[BaseException], bool]) -> BaseException | None:
    """The first of its kind within a group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            found = _first(inner, wanted)
            if found is not None:
                return found
        return None
    return error if wanted(error) else None
