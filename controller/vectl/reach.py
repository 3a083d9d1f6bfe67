"""Finds the controller that leads, among those that the context names and those that they name.

The naive way asks one controller, and its user for the next. Here each is asked in turn whether it leads; who does not
says who does, and is believed as far as the named one shows a controller's certificate of our cluster and was not found dead
just before: for seconds after its death the others still name the old leader. While a new one is being found nobody leads,
so all are asked again for a while.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import grpc.aio

from veapi.channel import Identity, controller_name, open_channel
from veapi.errors import Denied, Unavailable, VerackError
from veapi.v1 import api_pb2, api_pb2_grpc
from vectl import wire
from vectl.context import Context
from vectl.following import LeaderChannel

FIND_S = 10.0
"""A new leader takes up to five seconds."""
PAUSE_S = 0.2
DEAD_FOR_S = 3.0
"""How long a controller that did not answer is not asked again, as long as others do."""


class Candidates:
    """In which order controllers are asked. Pure."""

    def __init__(self, endpoints: Sequence[str], *, first: str = "") -> None:
        """`first`: the one that led until now."""
        self._turn = deque(dict.fromkeys([first, *endpoints] if first else endpoints))
        self._left = len(self._turn)
        self._named = ""
        self._dead: dict[str, float] = {}

    def next(self, *, now: float) -> str:
        """Whom to ask: the named leader, else the next in turn; those that were just found dead only when all were."""
        if self._named:
            target, self._named = self._named, ""
            return target
        alive = sum(not self._is_dead(each, now) for each in self._turn)
        if not self._left:
            self._left = alive or len(self._turn)
        self._left -= 1
        while alive and self._is_dead(self._turn[0], now):
            self._turn.rotate(-1)
        target = self._turn[0]
        self._turn.rotate(-1)
        return target

    @property
    def all_asked(self) -> bool:
        """This turn is over, and nobody named a leader that was not asked yet."""
        return not self._left and not self._named

    def failed(self, target: str, *, now: float) -> None:
        """It can't be reached."""
        self._dead[target] = now

    def named(self, leader: str, *, by: str, now: float) -> None:
        if leader and leader != by and not self._is_dead(leader, now):
            self._named = leader

    def _is_dead(self, target: str, now: float) -> bool:
        at = self._dead.get(target)
        return at is not None and now - at < DEAD_FOR_S


class Reach:
    """The channels to the controllers that were asked so far. `channel` is for stubs: it goes where the leader is."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._identity = Identity(ca=context.ca, cert=context.cert, key=context.key)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._target = ""
        self._lock = asyncio.Lock()
        self.channel = LeaderChannel(lambda: self._open(self._target), self.find)

    async def aclose(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    async def find(self, named: str) -> None:
        """Returns once connected with the leader: `named` (may be empty), if it is.

        Denied or Unavailable else, within FIND_S and what one try takes.
        """
        async with self._lock:
            await self._find(named)

    async def _find(self, named: str) -> None:
        time = asyncio.get_running_loop().time
        deadline = time() + FIND_S
        order = Candidates(self._context.endpoints, first=self._target)
        order.named(named, by=self._target, now=time())
        errors: dict[str, VerackError] = {}
        while True:
            target = order.next(now=time())
            try:
                leader = await self._ask(target)
            except (Unavailable, Denied) as error:
                order.failed(target, now=time())
                errors[target] = error
                if self._context.endpoints == (target,):
                    raise
            else:
                errors.pop(target, None)
                if leader is None:
                    self._target = target
                    return
                order.named(leader, by=target, now=time())
            if order.all_asked:
                self._give_up(errors, late=time() > deadline)
                await asyncio.sleep(PAUSE_S)

    async def _ask(self, target: str) -> str | None:
        """None: it leads. Else host:port of who does, empty when it does not know."""
        alone = self._context.endpoints == (target,)
        patience = wire.ALONE if alone else wire.AMONG
        context = replace(self._context, endpoints=(target,))
        channel, request = self._open(target), api_pb2.VersionRequest()
        version = api_pb2_grpc.SystemServiceStub(channel).Version
        await wire.ready(channel, version, request, context, patience)
        try:
            await version(request, timeout=patience.answer_s)
        except grpc.aio.AioRpcError as error:
            leader = wire.named_leader(error)
            if leader is None:
                raise wire.failure(error, context) from None
            return leader
        return None

    def _give_up(self, errors: dict[str, VerackError], *, late: bool) -> None:
        """Raises when it is late, or when all that the context names refuse us."""
        endpoints = self._context.endpoints
        refused = [error for error in errors.values() if isinstance(error, Denied)]
        all_refuse = all(isinstance(errors.get(each), Denied) for each in endpoints)
        if refused and (late or all_refuse):
            raise refused[0]
        if not late:
            return
        if len(errors) < len(endpoints):
            raise Unavailable(
                f"no controller leads; asked: {self._context.endpoint}",
                hint="a new leader takes a few seconds; if it stays so, look whether the controllers reach etcd",
            )
        raise Unavailable(
            "can't reach any controller: " + "; ".join(error.message for error in errors.values()),
            hint=f"are they running? They are those of context {self._context.name};"
            " --endpoint gives others",
        )

    def _open(self, target: str) -> grpc.aio.Channel:
        channel = self._channels.get(target)
        if channel is None:
            server = controller_name(self._context.cluster)
            channel = open_channel(target, server=server, identity=self._identity)
            self._channels[target] = channel
        return channel
