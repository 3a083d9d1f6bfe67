"""One session with one controller: the host's set comes down, numbered reports go up.

The first report is whole, later ones carry what changed; what changes within one turn of the loop goes in one report.
A set is acknowledged once it is durable; while one is being applied only the newest of those that came is kept.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog

from veagent.heartbeat import Lease, beat
from veagent.manager import Manager
from veagent.sources import SourceDesk
from veagent.status import AWAITS_IMAGE
from veagent.wire import write
from veapi import codec
from veapi.errors import Denied, TimedOut, Unavailable, VerackError, by_kind
from veapi.groups import TaskGroup
from veapi.model import Digest, HostSet, Timing, Uid, VEReport, VEState
from veapi.v1 import session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    Call = grpc.aio.StreamStreamCall[session_pb2.SessionUp, session_pb2.SessionDown]

log = structlog.get_logger()
WELCOME_LIMIT_S = 5.0
WRITE_LIMIT_S = 10.0
ACK_LIMIT_S = 30.0
REPORTS_IN_FLIGHT = 16
APPLY_RETRY_S = 1.0
PASSING_S = 0.1


class Granter(Protocol):
    """The peer service: hands an image to the peer that shows this ticket."""

    def grant(self, ticket: bytes, peer: str, digest: Digest) -> None: ...


class Session:
    """Lives as long as its stream. `run` ends by raising: whatever ends one part ends the session."""

    def __init__(
        self,
        stub: "session_pb2_grpc.AgentServiceAsyncStub",
        *,
        cluster: str,
        manager: Manager,
        lease: Lease,
        sources: SourceDesk,
        granter: Granter,
        dial_back: Callable[[bytes], None],
    ) -> None:
        self._stub = stub
        self._cluster = cluster
        self._manager = manager
        self._lease = lease
        self._sources = sources
        self._granter = granter
        self._dial_back = dial_back
        self._call: Call = stub.Session()
        self._write_lock = asyncio.Lock()
        self._reports = _Reports(manager)
        self._newest: HostSet | None = None
        self._set_came = asyncio.Event()
        self._opened_boot = manager.clock.boot()
        self._lapses = manager.fence.lapses

    async def run(self, *, welcomed: Callable[[], None]) -> None:
        """Calls `welcomed` once the controller took the session. Raises when it is over."""
        try:
            timing = await self._greet()
            welcomed()
            with self._sources.attached(self._ask_for_image):
                await self._serve(timing)
        finally:
            self._call.cancel()
            self._manager.unheard()

    async def _greet(self) -> Timing:
        manager = self._manager
        hello = session_pb2.Hello(
            facts=codec.facts_out(manager.facts()), held=codec.order_out(manager.held)
        )
        try:
            async with asyncio.timeout(WELCOME_LIMIT_S):
                with suppress(Unavailable):  # a refusal may be here already: the read tells it
                    await self._write(session_pb2.SessionUp(hello=hello))
                first = await self._call.read()
        except TimeoutError:
            raise TimedOut("the controller did not answer") from None
        if not isinstance(first, session_pb2.SessionDown) or not first.HasField("welcome"):
            raise Unavailable("the controller ended the session before it began")
        return self._check(first.welcome)

    def _check(self, welcome: session_pb2.Welcome) -> Timing:
        if welcome.cluster != self._cluster:
            raise Denied(
                f"this controller is of cluster {welcome.cluster}, this host of {self._cluster}",
                hint="check `cluster` and `controllers` in the agent's configuration",
            )
        log.info("session open", controller=welcome.controller, epoch=welcome.epoch)
        return codec.timing_in(welcome.timing)

    async def _serve(self, timing: Timing) -> None:
        clock = self._manager.clock
        self._manager.fence.agree(timing)
        async with TaskGroup() as group:
            group.create_task(self._read())
            group.create_task(self._apply_sets())
            group.create_task(self._send_reports())
            group.create_task(beat(self._stub, self._lease, timing, clock))
            group.create_task(self._guard(timing))

    # Down.

    async def _read(self) -> None:
        while True:
            message = await self._call.read()
            if not isinstance(message, session_pb2.SessionDown):
                raise Unavailable("the controller ended the session")
            self._take(message)

    def _take(self, message: session_pb2.SessionDown) -> None:
        match message.WhichOneof("message"):
            case "set":
                self._newest = codec.host_set_in(message.set)
                self._set_came.set()
            case "report_ack":
                self._reports.acked(message.report_ack.seq)
            case "dial_back":
                self._dial_back(message.dial_back.ticket)
            case "peer_grant":
                grant = message.peer_grant
                self._granter.grant(grant.ticket, grant.peer, Digest(grant.digest))
            case "image_source":
                self._take_source(message.image_source)
            case other:
                log.warning("message ignored", message=other)

    def _take_source(self, source: session_pb2.ImageSource) -> None:
        digest = Digest(source.digest)
        if source.HasField("failure"):
            failure = source.failure
            self._sources.refused(digest, by_kind(failure.kind, failure.message, failure.hint))
        else:
            self._sources.found(digest, source.peer, source.address, source.ticket)

    async def _apply_sets(self) -> None:
        while True:
            await self._set_came.wait()
            self._set_came.clear()
            host_set = self._newest
            assert host_set is not None
            try:
                order = await self._manager.apply(host_set)
            except VerackError as error:
                log.error("set not applied", error=error.message)  # noqa: TRY400
                await self._manager.clock.sleep(APPLY_RETRY_S)
                self._set_came.set()
            else:
                self._manager.fence.heard(self._lapses)
                ack = session_pb2.SetAck(order=codec.order_out(order))
                await self._write(session_pb2.SessionUp(set_ack=ack))

    # Up.

    async def _send_reports(self) -> None:
        await self._write(session_pb2.SessionUp(report=self._reports.whole()))
        while True:
            report = await self._reports.next()
            await self._write(session_pb2.SessionUp(report=report))

    async def _ask_for_image(self, digest: Digest) -> None:
        wanted = session_pb2.ImageWanted(digest=digest)
        await self._write(session_pb2.SessionUp(image_wanted=wanted))

    async def _write(self, message: session_pb2.SessionUp) -> None:
        async with self._write_lock:
            await write(self._call, message, timeout_s=WRITE_LIMIT_S)

    async def _guard(self, timing: Timing) -> None:
        """Ends a session whose controller lives but answers nothing (frozen, or cut from its store)."""
        clock = self._manager.clock
        limit_s = max(4 * timing.heartbeat_s, timing.fence_after_s / 2)
        while True:
            await clock.sleep(timing.heartbeat_s / 4)
            if self._manager.fence.lapses != self._lapses:
                raise Unavailable("the host's lease ran out; a new session tells what still holds")
            silent_s = min(self._lease.age_s(), clock.boot() - self._opened_boot)
            if silent_s > limit_s:
                raise Unavailable(f"no heartbeat was answered for {silent_s:.0f} s")
            if self._reports.oldest_unacked_s() > ACK_LIMIT_S:
                raise Unavailable(f"a report was not acknowledged for {ACK_LIMIT_S:g} s")


class _Reports:
    """Numbers reports, leaves out what the controller was told already, and waits while too many are unacknowledged."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._seq = 0
        self._told: dict[Uid, VEReport] = {}
        self._passing: dict[Uid, float] = {}
        """Since when each VE is Creating that was not yet told to be."""
        self._unacked: dict[int, float] = {}
        self._room = asyncio.Event()
        self._room.set()

    def whole(self) -> session_pb2.Report:
        self._manager.outbox.take()
        reports = self._manager.reports()
        self._told = {report.uid: report for report in reports}
        return self._numbered(
            session_pb2.Report(
                whole=True,
                ves=[codec.report_out(report) for report in reports],
                facts=codec.facts_out(self._manager.facts()),
            )
        )

    async def next(self) -> session_pb2.Report:
        """Waits until there is something new and room for it."""
        while True:
            await self._manager.outbox.wait()
            await self._room.wait()
            await asyncio.sleep(0)  # what else changes in this turn goes along
            report = self._delta()
            if report is not None:
                return self._numbered(report)

    def _delta(self) -> session_pb2.Report | None:
        uids, facts = self._manager.outbox.take()
        found = [self._manager.report(uid) for uid in uids]
        new = [
            report
            for report in found
            if report and report != self._told.get(report.uid) and self._lasts(report)
        ]
        if not new and not facts:
            return None
        self._told.update((report.uid, report) for report in new)
        return session_pb2.Report(
            ves=[codec.report_out(report) for report in new],
            facts=codec.facts_out(self._manager.facts()) if facts else None,
        )

    def _lasts(self, report: VEReport) -> bool:
        """Whether it is worth telling: most starts are over before anybody could read that they began.

        Each report costs a message, a transaction in etcd and an event at everybody who watches.
        """
        if report.status.state is not VEState.CREATING or report.status.reason == AWAITS_IMAGE:
            self._passing.pop(report.uid, None)
            return True
        now = self._manager.clock.boot()
        since = self._passing.get(report.uid)
        if since is None:
            self._passing[report.uid] = now
            loop = asyncio.get_running_loop()
            loop.call_later(PASSING_S, self._manager.outbox.mark, report.uid)
            return False
        return now - since >= PASSING_S

    def _numbered(self, report: session_pb2.Report) -> session_pb2.Report:
        self._seq += 1
        report.seq = self._seq
        self._unacked[self._seq] = self._manager.clock.boot()
        if len(self._unacked) >= REPORTS_IN_FLIGHT:
            self._room.clear()
        return report

    def acked(self, seq: int) -> None:
        """An acknowledgement covers all earlier ones."""
        for number in [number for number in self._unacked if number <= seq]:
            del self._unacked[number]
        if len(self._unacked) < REPORTS_IN_FLIGHT:
            self._room.set()

    def oldest_unacked_s(self) -> float:
        oldest = next(iter(self._unacked.values()), None)
        return 0.0 if oldest is None else self._manager.clock.boot() - oldest
