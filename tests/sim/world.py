"""One story, from its first write to the quiet at its end: builds the cluster, lets things happen, and looks at what came of it."""

import gc
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sim import fencing
from sim import loop as loops
from sim.calm import calm
from sim.checks import Checks, Violation
from sim.controller import Controller, Settings
from sim.disk import disks
from sim.entropy import seeded
from sim.etcd import SimEtcd
from sim.faults import Faults
from sim.hearing import hearing, silence
from sim.host import Host, blob_of, digest_of
from sim.loop import SimLoop, Stuck
from sim.network import Network, Paces
from sim.operators import CPU, DISK_BYTES, MEMORY_BYTES, PIDS, Operators
from sim.process import Process, SimClock
from sim.quiet import Quiet
from sim.story import MOVE_AFTER, Story
from veapi.model import HeldImage, Image, Resources, Timing
from vecontroller.store import keys, values
from vecontroller.store.port import Put

QUIET_LIMIT_S = 150.0
"""After the last fault everything is as asked within this: back-offs of a host are 60 s at most."""
LOOK_S = 1.0


@dataclass(slots=True)
class Outcome:
    """`digest`: of all that was told, so of the whole story. `counts`: how often each check was made."""

    story: Story
    violation: Violation | None
    digest: str
    steps: int
    ended_at: float
    revisions: int
    counts: dict[str, int]
    moves: int
    told: list[str] = field(default_factory=list)


class World:
    """The cluster of one story."""

    def __init__(
        self, loop: SimLoop, story: Story, *, listener: Callable[[str], None] | None
    ) -> None:
        self.loop = loop
        self.story = story
        self.quiet = False
        self._hash = hashlib.sha256()
        self._listener = listener
        knobs = story.knobs
        paces = Paces(knobs.base_s, knobs.jitter_s, knobs.spike, knobs.spike_s)
        self.network = Network(loop, self.rng("network"), paces)
        self.etcd = SimEtcd(loop)
        self.timing = Timing(
            heartbeat_s=knobs.pace,
            fence_after_s=8 * knobs.pace,
            kill_within_s=2 * knobs.pace,
            move_after_s=MOVE_AFTER * knobs.pace,
        )
        self.checks = Checks(
            loop, self.etcd, self.tell, timing=self.timing, rate_error=knobs.rate_error
        )
        self.hosts: dict[str, Host] = {}
        self.controllers: dict[str, Controller] = {}
        self._make_hosts()
        self._make_controllers()
        self.operators = Process(loop, "operators", SimClock(loop), self.rng("operators"))
        self._asking = Operators(self)
        self._faults = Faults(self)
        self._seed_images()

    def rng(self, name: str) -> Random:
        """A stream of its own for each part, so that one part's draws don't move another's."""
        return Random(f"{self.story.seed} {name}")

    def tell(self, line: str) -> None:
        told = f"{self.loop.time():9.3f} {line}"
        self._hash.update(told.encode())
        if self._listener is not None:
            self._listener(told)

    def overhear(self, line: str) -> None:
        """What a program logs is no part of the story: it may have random words."""
        if self._listener is not None:
            self._listener(f"{self.loop.time():9.3f}     {line}")

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def promised(self, what: str, request: Any, answer: Any) -> None:
        if what == "restart":
            self.checks.acked_restarts[answer.uid] += 1

    def _clock(self, rng: Random) -> SimClock:
        error = self.story.knobs.rate_error
        return SimClock(self.loop, rate=1 + rng.uniform(-error, error), offset=rng.uniform(0, 1e6))

    def _make_hosts(self) -> None:
        knobs = self.story.knobs
        room = knobs.room
        capacity = Resources(
            cpu_millis=int(room * CPU * 1000),
            memory_bytes=room * MEMORY_BYTES,
            pids=room * PIDS * 2,
        )
        for number in range(knobs.hosts):
            rng = self.rng(f"host {number}")
            self.hosts[f"h{number}"] = Host(
                f"h{number}",
                self.network,
                self._clock(rng),
                rng,
                capacity=capacity,
                ids=knobs.ids + 1,
                controllers=[f"c{n}:7443" for n in range(knobs.controllers)],
                checks=self.checks,
            )
        for host in self.hosts.values():
            host.peers = self.hosts
            host.fence_after_s = self.timing.fence_after_s
            host.disk_bytes = room * DISK_BYTES + DISK_BYTES // 4
        self.checks.hosts = self.hosts

    def _make_controllers(self) -> None:
        knobs = self.story.knobs
        settings = Settings(self.timing, knobs.replicas, knobs.keep_deleted_s, knobs.loss)
        for number in range(knobs.controllers):
            rng = self.rng(f"controller {number}")
            self.controllers[f"c{number}"] = Controller(
                f"c{number}",
                self.network,
                self._clock(rng),
                rng,
                etcd=self.etcd,
                settings=settings,
                checks=self.checks,
            )
        self.checks.controllers = self.controllers

    def _seed_images(self) -> None:
        """Two images, each on one host, as after an import."""
        writes = []
        for number in range(2):
            blob, digest = blob_of(number), digest_of(number)
            image = Image(
                digest=digest,
                blob_digest=digest,
                size_bytes=len(blob),
                blob_bytes=len(blob),
                created_at=1.0,
            )
            writes.append(Put(key=keys.image(digest), value=values.encode_image(image)))
            writes.append(Put(key=keys.image_tag(f"base{number}"), value=values.encode_ref(digest)))
            host = list(self.hosts.values())[number % len(self.hosts)]
            path = host.images._path(digest)
            held = HeldImage(
                digest=digest, blob_digest=digest, size_bytes=len(blob), blob_bytes=len(blob)
            )
            path.write_bytes(blob)
            host.images._held[digest] = held
        self.etcd.seed(writes)

    def run(self) -> None:
        """Until the quiet is over, or something is violated."""
        for controller in self.controllers.values():
            controller.boot(self.loop)
        for host in self.hosts.values():
            host.boot(self.loop)
        for number, event in enumerate(self.story.events):
            if event.is_fault:
                self.network.later(event.at, self._faults.happen, event)
            else:
                self.network.later(event.at, self._ask, event, number)
        self.network.later(self.story.length_s, self._end_faults)
        self.network.later(fencing.LOOK_S, self._watch_fences)
        try:
            self.loop.run_forever()
        except Stuck as stuck:
            self.checks.violate("the cluster goes on", str(stuck))
        if self.loop.errors and self.checks.violation is None:
            self.checks.violate("no error escapes", _words(self.loop.errors[0]))

    def _watch_fences(self) -> None:
        if self.loop.errors:
            self.loop.stop()
        self.checks.fencing.look()
        self.network.later(fencing.LOOK_S, self._watch_fences)

    def _ask(self, event: Any, number: int) -> None:
        self.operators.spawn(self._asking.ask(event, number), f"op{number}")

    def _end_faults(self) -> None:
        self.quiet = True
        self.tell("QUIET: no more faults")
        calm(self)
        self._until = self.loop.time() + QUIET_LIMIT_S
        self.network.later(LOOK_S, self._look)

    def _look(self) -> None:
        """[L4] Whether all is as asked by now."""
        quiet = Quiet(self)
        wrong = quiet.wrong()
        if not wrong:
            quiet.final()
            self.tell("all is as asked")
            self.loop.stop()
        elif self.loop.time() >= self._until:
            self.checks.violate("all comes to be as asked", "; ".join(wrong[:6]))
        else:
            self.network.later(LOOK_S, self._look)


def _words(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context.get('message')}: {error!r}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No collection in the middle of a story, and no word of what was left behind at its end."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        sys.unraisablehook = hook


def play(
    story: Story, *, listener: Callable[[str], None] | None = None, logs: bool = False
) -> Outcome:
    """One story. `listener` gets each line that is told, with its time; `logs`: and what the programs log."""
    with silence(), _undisturbed(), seeded(story.seed), disks():
        order = Random(f"{story.seed} order") if story.knobs.shuffle else None
        with loops.running(order) as loop:
            world = World(loop, story, listener=listener)
            with hearing(world, everything=logs):
                world.run()
            checks = world.checks
            outcome = Outcome(
                story=story,
                violation=checks.violation,
                digest=world.digest,
                steps=loop.steps,
                ended_at=loop.time(),
                revisions=world.etcd.revision,
                counts=dict(checks.counts),
                moves=checks.fencing.moves,
            )
        del world, checks, loop
    return outcome
