"""What goes wrong: each kind of fault does its harm and, some time later, lets the cluster be."""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from sim.calm import mind, thaw
from sim.controller import Controller
from sim.etcd import NODE
from sim.host import Host
from sim.story import Event
from veagent.ports import Ended, EndKind
from veapi.errors import RemoteFailed

if TYPE_CHECKING:
    from sim.world import World

STEPS = (
    "start",
    "stop",
    "create",
    "delete",
    "drop",
    "limit",
    "freeze",
    "thaw",
    "attach",
    "detach",
    "snapshot",
    "forget",
    "used_bytes",
)


class Faults:
    """Numbers of an event choose whom, how long and how."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._kinds: dict[str, Callable[[int, int, int], None]] = {
            "controller dies": self._controller_dies,
            "controller stops": self._controller_stops,
            "agent dies": self._agent_dies,
            "agent stops": self._agent_stops,
            "host loses power": self._power,
            "cut": lambda a, b, c: self._cut(a, b, c, both=True),
            "cut one way": lambda a, b, c: self._cut(a, b, c, both=False),
            "isolate": self._isolate,
            "reset": self._reset,
            "slow path": self._slow,
            "leader loses etcd": self._leader_cut,
            "etcd loses answers": self._loses,
            "etcd elects": self._elects,
            "etcd compacts": self._compacts,
            "watch stands still": self._watch,
            "disk fails": self._disk,
            "step fails": self._step_fails,
            "step dawdles": self._dawdles,
            "guest dies": lambda a, b, _c: self._guest(a, b, Ended(EndKind.CRASH, 9)),
            "guest powers off": lambda a, b, _c: self._guest(a, b, Ended(EndKind.HALT)),
            "guest reboots": lambda a, b, _c: self._guest(a, b, Ended(EndKind.REBOOT)),
            "stubborn guests": self._stubborn,
            "clock jumps": self._clock,
            "fence dies": self._fence_dies,
            "fence stands still": self._fence_stops,
            "host freezes": self._freezes,
            "host is lost": self._lost,
        }

    def happen(self, event: Event) -> None:
        self._kinds[event.what](*event.numbers)

    # Whom, and for how long.

    def _controller(self, number: int) -> Controller:
        """Every other time the one that leads."""
        found = list(self._world.controllers.values())
        leading = [each for each in found if each.serving]
        return leading[0] if leading and number % 2 else found[number % len(found)]

    def _host(self, number: int) -> Host:
        found = list(self._world.hosts.values())
        return found[number % len(found)]

    def _node(self, number: int) -> str:
        nodes = [*self._world.controllers, *self._world.hosts, NODE]
        return nodes[number % len(nodes)]

    def _for(self, number: int, at_least_s: float, at_most_s: float) -> float:
        return at_least_s + (at_most_s - at_least_s) * (number / 1000) ** 2

    def _tell(self, what: str) -> None:
        self._world.tell(f"FAULT {what}")

    def _later(self, delay_s: float, work: Callable[[], None]) -> None:
        """Unless the faults have ended by then: `calm` heals all."""
        world = self._world
        world.network.later(delay_s, lambda: None if world.quiet else work())

    # Processes.

    def _controller_dies(self, a: int, b: int, _c: int) -> None:
        controller, down_s = self._controller(a), self._for(b, 0.2, 20)
        self._tell(f"{controller.name} dies for {down_s:.1f} s")
        controller.crash()
        self._later(down_s, lambda: self._boot(controller))

    def _boot(self, who: Controller | Host) -> None:
        if not who.process.alive and who.name not in self._world.network.down:
            who.boot(self._world.loop)

    def _controller_stops(self, a: int, b: int, _c: int) -> None:
        controller, still_s = self._controller(a), self._for(b, 0.5, 15)
        process = controller.process
        self._tell(f"{controller.name} stands still for {still_s:.1f} s")
        process.pause()
        self._later(still_s, process.resume)

    def _agent_dies(self, a: int, b: int, _c: int) -> None:
        host, down_s = self._host(a), self._for(b, 0.1, 12)
        self._tell(f"agent of {host.name} dies for {down_s:.1f} s")
        mind(self._world, host)
        host.crash()
        self._later(down_s, lambda: self._boot(host))

    def _agent_stops(self, a: int, b: int, _c: int) -> None:
        host, still_s = self._host(a), self._for(b, 0.5, 20)
        process = host.process
        self._tell(f"agent of {host.name} stands still for {still_s:.1f} s")
        mind(self._world, host)
        process.pause()
        self._later(still_s, lambda: None if host.frozen else process.resume())

    def _fence_dies(self, a: int, b: int, c: int) -> None:
        """For long, or for a moment; and with it the agent, for long."""
        self._fence_away(a, b, c, kill=True)

    def _fence_stops(self, a: int, b: int, c: int) -> None:
        self._fence_away(a, b, c, kill=False)

    def _fence_away(self, a: int, b: int, c: int, *, kill: bool) -> None:
        host, moment_s = self._host(a), 0.2 * self._world.timing.kill_within_s
        minder, agent = host.minder, host.process
        healthy = agent.alive and not agent.paused
        if (
            minder is None
            or not minder.alive
            or host.frozen
            or host.name in self._world.network.down
        ):
            return
        long_s = self._for(b, 1, 35) if healthy and c % 3 == 0 else moment_s * b / 1000
        self._tell(
            f"vefence of {host.name} {'dies' if kill else 'stands still'} for {long_s:.1f} s"
        )
        if healthy and c % 3 == 1:
            agent_s = self._for(b, 5, 25)
            self._tell(f"with its agent, for {agent_s:.1f} s")
            host.crash()
            self._later(agent_s, lambda: self._boot(host))
        if kill:
            host.kill_fence()
            self._later(long_s, lambda: mind(self._world, host))
        else:
            minder.pause()
            self._later(long_s, lambda: None if host.frozen else minder.resume())

    def _freezes(self, a: int, b: int, _c: int) -> None:
        """The whole machine, as a virtual one that is moved; its clock goes on."""
        host, still_s = self._host(a), self._for(b, 0.5, 30)
        if host.frozen or host.name in self._world.network.down:
            return
        self._tell(f"{host.name} stands still for {still_s:.1f} s")
        host.frozen = True
        for process in (host.process, host.minder):
            if process is not None:
                process.pause()
        self._later(still_s, lambda: thaw(self._world, host))

    def _lost(self, a: int, b: int, c: int) -> None:
        """For longer than its VEs wait for it: power, network, or the agent."""
        for_s = self._world.timing.move_after_s + self._for(b, -1, 25)
        host = self._host(a)
        if c % 3 == 0:
            self._off(host, for_s)
        elif c % 3 == 1:
            nodes = [*self._world.controllers, *self._world.hosts]
            self._cut_pairs(
                [(host.name, n) for n in nodes if n != host.name], for_s, both=b % 2 > 0
            )
        else:
            self._tell(f"agent of {host.name} is dead for {for_s:.1f} s")
            mind(self._world, host)
            host.crash()
            self._later(for_s, lambda: self._boot(host))

    def _power(self, a: int, b: int, _c: int) -> None:
        self._off(self._host(a), self._for(b, 1, 30))

    def _off(self, host: Host, down_s: float) -> None:
        if host.name in self._world.network.down:
            return
        self._tell(f"{host.name} loses power for {down_s:.1f} s")
        host.lose_power()

        def power_on() -> None:
            self._world.network.power_on(host.name)
            self._boot(host)

        self._later(down_s, power_on)

    # The network.

    def _cut(self, a: int, b: int, c: int, *, both: bool) -> None:
        one, other = self._node(a), self._node(b)
        if one == other:
            other = self._node(b + 1)
        self._cut_pairs([(one, other)], self._for(c, 0.2, 25), both=both)

    def _isolate(self, a: int, b: int, c: int) -> None:
        node = self._node(a)
        others = [*self._world.controllers, *self._world.hosts, NODE]
        pairs = [(node, other) for other in others if other != node]
        self._cut_pairs(pairs, self._for(c, 0.5, 25), both=b % 3 != 0)

    def _cut_pairs(self, pairs: list[tuple[str, str]], still_s: float, *, both: bool) -> None:
        network = self._world.network
        found = [*pairs, *((other, one) for one, other in pairs if both)]
        self._tell(f"cut {pairs} {'both ways' if both else 'one way'} for {still_s:.1f} s")
        for source, target in found:
            network.cut(source, target)

        def heal() -> None:
            for source, target in found:
                network.heal(source, target)

        self._later(still_s, heal)

    def _leader_cut(self, a: int, b: int, _c: int) -> None:
        """It goes on to believe that it leads, and hosts still reach it."""
        leader = self._controller(1).name
        self._cut_pairs([(leader, NODE)], self._for(a, 3, 30), both=b % 4 != 0)

    def _reset(self, a: int, b: int, _c: int) -> None:
        one, other = self._controller(a).name, self._host(b).name
        self._tell(f"connections of {one} and {other} are reset")
        self._world.network.reset(one, other)

    def _slow(self, a: int, b: int, c: int) -> None:
        one, other, slow = self._node(a), self._node(b), 50 + c
        network = self._world.network
        self._tell(f"{one} to {other} takes {slow} ms longer")
        network.slow[one, other] += slow
        self._later(self._for(c, 1, 20), lambda: network.slow.subtract({(one, other): slow}))

    # The store.

    def _loses(self, a: int, b: int, c: int) -> None:
        """Requests, or answers, or only now: they come late."""
        store = self._controller(a).store
        if store is None:
            return
        loss, still_s, before = 0.1 + b / 2000, self._for(c, 1, 15), self._world.story.knobs.loss
        self._tell(
            f"{loss:.0%} of what {store._node} and etcd say is lost or late for {still_s:.1f} s"
        )
        store.loss = loss

        def heal() -> None:
            store.loss = before

        self._later(still_s, heal)

    def _elects(self, a: int, _b: int, _c: int) -> None:
        pause_s = self._for(a, 0.5, 4)
        self._tell(f"etcd elects for {pause_s:.1f} s")
        self._world.etcd.paused_until = self._world.loop.time() + pause_s

    def _compacts(self, _a: int, b: int, _c: int) -> None:
        etcd = self._world.etcd
        revision = etcd.revision - (b % 5)
        if revision > etcd.compacted:
            self._tell(f"etcd compacts at {revision}")
            etcd.compact(revision)

    def _watch(self, a: int, b: int, c: int) -> None:
        """And, most times, its history is compacted meanwhile."""
        store = self._controller(a).store
        if store is None:
            return
        still_s = self._for(b, 0.5, 10)
        self._tell(f"watch of {store._node} stands still for {still_s:.1f} s")
        store.watch_cut = True

        def heal() -> None:
            if c % 5:
                self._compacts(0, 0, 0)
            store.watch_cut = False

        self._later(still_s, heal)

    # Hosts.

    def _disk(self, a: int, b: int, c: int) -> None:
        host, still_s = self._host(a), self._for(b, 0.5, 15)
        host.disk.failing = errno.ENOSPC if c % 2 else errno.EIO
        self._tell(f"disk of {host.name} fails for {still_s:.1f} s")

        def heal() -> None:
            host.disk.failing = None
            host.disk_well_at = self._world.loop.time()

        self._later(still_s, heal)

    def _step_fails(self, a: int, b: int, c: int) -> None:
        host, step, times = self._host(a), STEPS[b % len(STEPS)], 1 + c % 3
        self._tell(f"{step} of {host.name} fails {times} times")
        for port in (host.runtime, host.roots, host.wires):
            if hasattr(port, step):
                port.fail(step, times=times, error=RemoteFailed(f"{step} failed on command"))

    def _dawdles(self, a: int, b: int, c: int) -> None:
        host = self._host(a)
        host.lazy_s = self._for(b, 0.2, 5)
        self._tell(f"starts of {host.name} take up to {host.lazy_s:.1f} s")

        def heal() -> None:
            host.lazy_s = 0.0

        self._later(self._for(c, 1, 20), heal)

    def _stubborn(self, a: int, b: int, _c: int) -> None:
        host = self._host(a)
        host.stubborn = True
        self._tell(f"guests of {host.name} take their time to end")

        def heal() -> None:
            host.stubborn = False

        self._later(self._for(b, 2, 30), heal)

    def _guest(self, a: int, b: int, ended: Ended) -> None:
        running = list(self._host(a).runtime.running)
        if running:
            uid = running[b % len(running)]
            self._tell(f"guest {uid[:8]} ends: {ended.kind.value}")
            if ended.kind is EndKind.HALT:
                self._world.checks.powered_off.add(uid)
            self._host(a).runtime.finish(uid, ended)

    def _clock(self, a: int, b: int, c: int) -> None:
        """Of a host: what people read, never what is decided by."""
        host = self._host(a)
        host.clock.wall_offset += (b - 500) * 10
        self._tell(f"clock of {host.name} jumps by {(b - 500) * 10} s")
