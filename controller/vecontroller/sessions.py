"""Serves the agents: one session for each host, its heartbeats, and the streams that it dials back for.

Who calls is said by the certificate, never by a message. A change of the view only wakes the sessions of the hosts that it
may concern; what each of them sends is decided by `hostsession` from the view as it is then.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from veapi import channel, codec
from veapi.channel import Role
from veapi.clock import Clock
from veapi.errors import Denied, InvalidInput, Unavailable, VerackError
from veapi.model import Cluster, Digest, HostFacts, HostName, HostSet, HostState, Order, VEReport
from veapi.v1 import session_pb2, session_pb2_grpc
from vecontroller import claims, hostset
from vecontroller.admission import Admission, Guest, shut_out
from vecontroller.calls import Context, refuse
from vecontroller.copies import Copies, Holdings
from vecontroller.hostsession import HostSession, Roster
from vecontroller.imagesource import ImageSources
from vecontroller.liveness import Liveness
from vecontroller.relay import Relays
from vecontroller.reports import Reported, Reports
from vecontroller.topic import Topic
from vecontroller.view import Changed, View

log = structlog.get_logger()
HELLO_WITHIN_S = 10.0
M = TypeVar("M")
V = TypeVar("V")


class Term(Protocol):
    """The leadership, as far as sessions need it."""

    epoch: int
    incarnation: int

    async def confirmed_after(self, boot_time: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDeps:
    """What sessions need of the rest. `leader` gives host:port of who leads, as far as it is known."""

    controller: str
    cluster: Cluster
    view: Callable[[], View]
    topic: Topic
    clock: Clock
    term: Callable[[], Term]
    leader: Callable[[], str]
    roster: Roster
    liveness: Liveness
    reports: Reports
    relays: Relays
    sources: ImageSources
    copies: Copies


class Sessions(session_pb2_grpc.AgentServiceServicer):
    """The service, and what the rest of the controller asks about hosts."""

    def __init__(self, deps: SessionDeps, admission: Admission) -> None:
        self._deps = deps
        self._admission = admission
        self._peers: dict[HostName, str] = {}
        self._holdings = Holdings(deps.copies, deps.view)

    # What others ask.

    def host_state(self, host: HostName) -> HostState:
        return self._deps.liveness.host_state(host)

    def connected(self, host: HostName) -> bool:
        return self._deps.liveness.connected(host)

    def silent_for(self, host: HostName) -> float:
        """Seconds of silence that count."""
        return self._deps.liveness.silent_for(host)

    def last_heartbeat(self, host: HostName) -> float | None:
        """Unix seconds, for people; None when it was not heard of."""
        return self._deps.liveness.last_heartbeat(host)

    def image_hosts(self, digest: Digest) -> frozenset[HostName]:
        """Hosts that shall hold the image."""
        return self._deps.copies.wanted_on(digest)

    def orphans(self, host: HostName) -> tuple[VEReport, ...]:
        """What the host has and nobody's set names."""
        return self._deps.reports.orphans(host)

    async def run(self) -> None:
        """For ever: wakes the sessions whose set may have changed."""
        with self._deps.topic.subscribe() as changes:
            while True:
                self._wake(await changes.next())

    # What agents call.

    async def Session(  # noqa: N802
        self, request_iterator: AsyncIterator[session_pb2.SessionUp], context: Context
    ) -> AsyncIterator[session_pb2.SessionDown]:
        try:
            host = self._host(context)
            hello = await _hello(request_iterator)
            guest = await self._admission.admit(host, _facts(hello.facts))
            async with aclosing(self._serve(host, hello, guest, request_iterator)) as messages:
                async for message in messages:
                    yield message
        except VerackError as error:
            await refuse(context, error, leader=self._deps.leader())

    async def Heartbeat(  # noqa: N802
        self, request_iterator: AsyncIterator[session_pb2.HeartbeatUp], context: Context
    ) -> AsyncIterator[session_pb2.HeartbeatDown]:
        deps = self._deps
        try:
            host = self._host(context)
            guest = self._admission.guest(host)
            async for beat in request_iterator:
                received = deps.clock.boot()
                self._admission.heard(host, guest)
                deps.liveness.heard(host)
                await deps.term().confirmed_after(received)
                await deps.liveness.answerable(host)
                yield session_pb2.HeartbeatDown(seq=beat.seq, epoch=deps.term().epoch)
        except VerackError as error:
            await refuse(context, error, leader=deps.leader())

    async def Relay(  # noqa: N802
        self, request_iterator: AsyncIterator[session_pb2.RelayUp], context: Context
    ) -> AsyncIterator[session_pb2.RelayDown]:
        try:
            host = self._host(context)
            async with aclosing(self._deps.relays.serve(host, request_iterator)) as messages:
                async for message in messages:
                    yield message
        except VerackError as error:
            await refuse(context, error, leader=self._deps.leader())

    # How.

    def _host(self, context: Context) -> HostName:
        caller = channel.caller(context, self._deps.cluster.name)
        if caller.role is not Role.HOST:
            raise Denied(
                f"a {caller.role.value}'s certificate can't serve as a host",
                hint="agents use a certificate of `vecontroller cert host NAME`",
            )
        return HostName(caller.name)

    async def _serve(
        self,
        host: HostName,
        hello: session_pb2.Hello,
        guest: Guest,
        requests: AsyncIterator[session_pb2.SessionUp],
    ) -> AsyncGenerator[session_pb2.SessionDown, None]:
        deps = self._deps
        session = HostSession(host, lambda: self._build(host), deps.clock)
        deps.roster.join(session)
        deps.liveness.session_began(host)
        reading = asyncio.ensure_future(self._read(session, hello, requests))
        log.info("session open", host=host, version=hello.facts.version)
        try:
            yield session_pb2.SessionDown(welcome=self._welcome())
            async for message in session.outgoing():
                yield message
        finally:
            reading.cancel()
            deps.roster.leave(session)
            deps.liveness.session_ended(host)
            self._admission.left(host, guest)
            log.info("session closed", host=host)
            with suppress(asyncio.CancelledError):
                await reading

    def _welcome(self) -> session_pb2.Welcome:
        term, cluster = self._deps.term(), self._deps.cluster
        return session_pb2.Welcome(
            controller=self._deps.controller,
            epoch=term.epoch,
            incarnation=term.incarnation,
            timing=codec.timing_out(cluster.timing),
            cluster=cluster.name,
        )

    def _build(self, host: HostName) -> HostSet:
        term, view = self._deps.term(), self._deps.view()
        order = Order(incarnation=term.incarnation, epoch=term.epoch, revision=view.revision)
        images = self._deps.copies.of_host(host)
        return hostset.build(view, host, order=order, images=images)

    def _wake(self, changed: Changed) -> None:
        """Images and addresses of hosts concern every set, placements only the sets of their hosts."""
        roster = self._deps.roster
        self._shut_out(changed.hosts)
        looked_at = bool(changed.hosts) or changed.relisted  # before "or": it remembers what it saw
        peers_changed = looked_at and self._peers_changed()
        holders = self._holdings.concerned(changed.hosts) if looked_at else frozenset()
        everybody = changed.relisted or changed.images or peers_changed or holders is None
        everybody = everybody or (bool(changed.ves) and self._deps.copies.moving_changed())
        for session in (
            roster.all() if everybody else roster.of(changed.placed | (holders or frozenset()))
        ):
            session.set_may_have_changed()

    def _shut_out(self, hosts: frozenset[HostName]) -> None:
        """Ends the sessions of hosts of which operators have said since that they are gone."""
        for session in self._deps.roster.of(hosts):
            why = shut_out(self._deps.view(), session.host)
            if why:
                session.end(Denied(why, hint="the agent dials again"))

    def _peers_changed(self) -> bool:
        """Most news of hosts are about heartbeats, which are in no set."""
        before = self._peers
        self._peers = {name: held.value.address for name, held in self._deps.view().hosts.items()}
        return before != self._peers

    async def _read(
        self,
        session: HostSession,
        hello: session_pb2.Hello,
        requests: AsyncIterator[session_pb2.SessionUp],
    ) -> None:
        """Takes what the agent sends; whatever goes wrong here ends the session."""
        try:
            facts = _facts(hello.facts)
            await self._deps.reports.submit(Reported(host=session.host, facts=facts))
            async for message in requests:
                if (
                    session.ended
                ):  # replaced: what it still says is older than what the newer one said
                    return
                await self._take(session, message)
            session.end(Unavailable("the agent ended the session"))
        except VerackError as error:
            session.end(error)
        except Exception:
            log.exception("session failed", host=session.host)
            session.end(Unavailable("the session failed", hint="look at the controller's log"))

    async def _take(self, session: HostSession, message: session_pb2.SessionUp) -> None:
        match message.WhichOneof("message"):
            case "report":
                await self._deps.reports.submit(_reported(session, message.report))
            case "set_ack":
                order = codec.order_in(message.set_ack.order)
                session.set_acked(order)
                self._deps.liveness.set_acked(session.host, order)
            case "image_wanted":
                digest = Digest(message.image_wanted.digest)
                claims.check_text("digest", digest)
                source = self._deps.sources.find(session.host, digest)
                session.tell(session_pb2.SessionDown(image_source=source))
            case other:
                log.warning("message ignored", host=session.host, message=other)


async def _hello(requests: AsyncIterator[session_pb2.SessionUp]) -> session_pb2.Hello:
    try:
        async with asyncio.timeout(HELLO_WITHIN_S):
            first = await anext(requests, None)
    except TimeoutError:
        first = None
    if first is None or not first.HasField("hello"):
        raise InvalidInput(
            f"a session begins with Hello, within {HELLO_WITHIN_S:g} s",
            hint="use a veagent of this version",
        )
    return first.hello


def _reported(session: HostSession, report: session_pb2.Report) -> Reported:
    """As a value that acknowledges itself on the session; InvalidInput for what no host may claim."""
    claims.check_count("reports", len(report.ves), claims.REPORTS_LIMIT)
    ack = session_pb2.SessionDown(report_ack=session_pb2.ReportAck(seq=report.seq))
    return Reported(
        host=session.host,
        ves=tuple(claims.check_report(_decoded(codec.report_in, each)) for each in report.ves),
        facts=_facts(report.facts) if report.HasField("facts") else None,
        whole=report.whole,
        done=lambda: session.tell(ack),
        failed=session.end,
    )


def _facts(message: session_pb2.HostFacts) -> HostFacts:
    """What the host says of itself; InvalidInput for what no host may claim."""
    facts = _decoded(codec.facts_in, message)
    claims.check_facts(facts)
    return facts


def _decoded(decode: Callable[[M], V], message: M) -> V:
    """InvalidInput for a message that says what no agent may say."""
    try:
        return decode(message)
    except (ValueError, KeyError, OverflowError) as error:
        raise InvalidInput(
            f"the agent sent something that can't be read: {error}",
            hint="use a veagent of this version",
        ) from None
