"""A controller's process, made of the real parts: it stands for the lead, leads, dies, and is started again."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from sim.etcd import SimEtcd, SimStore
from sim.grpcish import Context, Refused, Server
from sim.host import CLUSTER
from sim.network import Network
from sim.process import Process, SimClock
from veapi import channel
from veapi.daemon import forever
from veapi.errors import VerackError
from veapi.groups import TaskGroup
from veapi.model import Cluster, Timing
from vecontroller.api.departed import Departed
from vecontroller.api.image import ImageService
from vecontroller.api.inflight import InFlight
from vecontroller.api.orphan import OrphanService
from vecontroller.api.project import ProjectService
from vecontroller.api.switches import SwitchService
from vecontroller.api.ve import VEService
from vecontroller.app import api_deps
from vecontroller.calls import refuse
from vecontroller.core import Core, compose, lead, new_op_id
from vecontroller.leader import TAKEOVER_AFTER_S, init_cluster
from vecontroller.switching import Switching

if TYPE_CHECKING:
    from sim.checks import Checks


@dataclass(frozen=True, slots=True)
class Settings:
    """Of all controllers of a story."""

    timing: Timing
    replicas: int
    keep_deleted_s: float
    loss: float


class Controller:
    """One after the other process of the same name."""

    def __init__(
        self,
        name: str,
        network: Network,
        clock: SimClock,
        rng: Random,
        *,
        etcd: SimEtcd,
        settings: Settings,
        checks: "Checks",
    ) -> None:
        self.name = name
        self.clock = clock
        self.core: Core | None = None
        self.store: SimStore | None = None
        self.process: Process
        self.services: dict[str, Any] = {}
        self._network = network
        self._rng = rng
        self._etcd = etcd
        self._settings = settings
        self._checks = checks

    @property
    def serving(self) -> bool:
        return self.core is not None and self.process.alive and self.core.standing.serving

    @property
    def epoch(self) -> int:
        return self.core.standing.epoch if self.core is not None else 0

    def boot(self, loop: Any) -> None:
        self.core = None
        self.process = Process(loop, self.name, self.clock, self._rng)
        self.process.on_exit = lambda error: self._exited(loop, error)
        self.process.main(self._serve())

    def settle(self, *, loss: float) -> None:
        """Its store is well, but for so much that it loses, also after a restart."""
        self._settings = replace(self._settings, loss=loss)
        if self.store is not None:
            self.store.watch_cut, self.store.loss = False, loss

    def crash(self) -> None:
        if self.process.alive:
            self.process.die()
        self.core = None

    def _exited(self, loop: Any, error: BaseException | None) -> None:
        """As systemd: again, a moment later."""
        self.core = None
        self._checks.ended(self, error)
        process = self.process
        self._network.later(1.0, lambda: self.boot(loop) if self.process is process else None)

    async def _serve(self) -> None:
        settings = self._settings
        self.store = store = SimStore(
            self._etcd, self._network, self.process, self.name, self._rng, loss=settings.loss
        )
        cluster = await init_cluster(store, Cluster(name=CLUSTER, timing=settings.timing))
        self.core = core = compose(
            name=self.name,
            address=f"{self.name}:7443",
            cluster=cluster,
            store=store,
            clock=self.clock,
            replicas=settings.replicas,
            keep_deleted_s=settings.keep_deleted_s,
        )
        store.epoch = lambda: core.standing.epoch
        departed = self._open_services(core)
        switching = Switching(
            *(core.mirror, core.writer, core.clock),
            state=core.sessions.host_state,
            new_op_id=new_op_id,
        )
        Server(self._network, self.process, self.name, serve=self._answer, peer_of=_certificate_of)
        await lead(core, lambda: _beside(departed, switching), patience_s=TAKEOVER_AFTER_S)

    async def _timed(
        self, requests: AsyncIterator[Any], came: dict[int, float], node: str
    ) -> AsyncIterator[Any]:
        async for request in requests:
            came[getattr(request, "seq", 0)] = self.process.loop.time()
            if self.serving:
                self._checks.fencing.hears(node)
            yield request

    def _open_services(self, core: Core) -> Departed:
        deps = api_deps(core)
        in_flight, departed = InFlight(deps.clock), Departed(deps)
        self.services = {
            "VE": VEService(deps, in_flight, departed),
            "Image": ImageService(deps, in_flight),
            "Project": ProjectService(deps),
            "Orphan": OrphanService(deps, in_flight),
            "Switch": SwitchService(deps),
        }
        return departed

    async def _answer(
        self, method: str, requests: AsyncIterator[Any], context: Context
    ) -> AsyncGenerator[Any, None]:
        """As `Gate` and the services: refuses while it does not lead."""
        core = self.core
        assert core is not None
        if not core.standing.serving:
            await refuse(context, core.standing.refusal(), leader=core.standing.leader_address)  # type: ignore[arg-type]
        if method in ("Session", "Heartbeat"):
            came: dict[int, float] = {}
            answers = getattr(core.sessions, method)(
                self._timed(requests, came, context.node), context
            )
            async with aclosing(answers):
                async for answer in answers:
                    if method == "Heartbeat":
                        self._checks.acknowledges(self, context.node, came.pop(answer.seq))
                    yield answer
            return
        service, _, name = method.partition(".")
        request = await anext(requests)
        try:
            yield await getattr(self.services[service], name)(request, context)
        except VerackError as error:
            await refuse(context, error, leader=core.standing.leader_address)  # type: ignore[arg-type]


async def _beside(departed: Departed, switching: Switching) -> None:
    async with TaskGroup() as group:
        group.create_task(forever("departed", departed.run()))
        group.create_task(forever("switching", switching.run()))


def _certificate_of(node: str) -> str:
    if node.startswith("h"):
        return channel.host_name(node, CLUSTER)
    return channel.user_name(node, CLUSTER)


__all__ = ["Controller", "Refused", "Settings"]
