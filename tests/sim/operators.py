"""People who ask: each operation is a call of the API, follows the leader, and remembers what was promised to it."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc.aio

from sim.grpcish import Channel
from sim.story import Event
from veapi.errors import Unavailable, VerackError
from veapi.model import HostName, Uid
from veapi.rpc import from_rpc
from veapi.v1 import api_pb2, hostlife_pb2, types_pb2
from vecontroller.store import keys

if TYPE_CHECKING:
    from sim.world import World

TRIES = 6
CALL_S = 8.0
LEADER_KEY = "verack-leader"
GIB = 1 << 30
CPU = 1.0
MEMORY_BYTES = GIB
DISK_BYTES = GIB
PIDS = 100


COUNTED = {
    "restart": "restart_seq",
    "set": "restart_seq",
    "rebuild": "root.seq",
    "restore": "root.seq",
    "snapshot": "snapshot_seq",
}
"""What an operation counts up, by one."""


REFUSALS = ("not_found", "conflict", "invalid_input", "no_host_fits", "denied")
TWICE = {"fickle": ("create", "delete", 0.0), "regret": ("delete", "undelete", 3.0)}
"""Operations that are two: the second one comes right after the first, or up to so many seconds later."""


class Operators:
    """All of them; they share what they know of the leader."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._checks = world.checks
        self._leader = "c0"

    async def ask(self, event: Event, number: int) -> None:
        """One operation, as someone who wants it would ask for it. A refusal is an answer."""
        first, then, wait_s = TWICE.get(event.what, (event.what, "", 0.0))
        done = await self._ask(first, event, number)
        if then and done:
            await self._world.operators.clock.sleep(wait_s * event.numbers[2] / 1000)
            await self._ask(then, event, number)

    async def _ask(self, what: str, event: Event, number: int) -> bool:
        method, request = self._request(what, event, number)
        world = self._world
        world.tell(f"op{number} asks {what} {_shown(request)}")
        self._note_asked(what, request)
        try:
            answer = await self._call(f"o{number}", method, request)
        except VerackError as error:
            world.tell(f"op{number} {what}: {error.kind}: {error.message}")
            if error.kind in REFUSALS:
                self._note_refused(what, request)
            return False
        world.tell(f"op{number} {what}: done")
        self._acknowledged(what, request, answer)
        return True

    # What is asked.

    def _request(self, what: str, event: Event, number: int) -> tuple[str, Any]:
        a, b, c = event.numbers
        name = f"v{a % self._world.story.knobs.names}"
        ref = api_pb2.VERef(name=name)
        tag = f"s{b % 3}"
        image = f"base{c % 2}"
        make: dict[str, Callable[[], tuple[str, Any]]] = {
            "create": lambda: ("VE.Create", self._create(name, number, b, c)),
            "delete": lambda: ("VE.Delete", api_pb2.DeleteVERequest(ve=ref, purge=b % 4 == 0)),
            "purge": lambda: ("VE.Purge", ref),
            "undelete": lambda: ("VE.Undelete", self._undelete(ref, b)),
            "start": lambda: ("VE.SetRun", api_pb2.SetRunRequest(ve=ref, run="running")),
            "stop": lambda: (
                "VE.SetRun",
                api_pb2.SetRunRequest(ve=ref, run="stopped", force=b % 3 == 0),
            ),
            "freeze": lambda: ("VE.SetRun", api_pb2.SetRunRequest(ve=ref, run="frozen")),
            "restart": lambda: ("VE.Restart", api_pb2.RestartRequest(ve=ref, force=b % 3 == 0)),
            "set": lambda: ("VE.Set", self._set(ref, b, c)),
            "rename": lambda: (
                "VE.Rename",
                api_pb2.RenameVERequest(ve=ref, name=f"v{b % self._world.story.knobs.names}"),
            ),
            "clone": lambda: ("VE.Clone", self._clone(ref, number, b, tag)),
            "rebuild": lambda: (
                "VE.Rebuild",
                api_pb2.RebuildVERequest(ve=ref, image=image if b % 2 else ""),
            ),
            "snapshot": lambda: ("VE.TakeSnapshot", api_pb2.SnapshotRef(ve=ref, tag=tag)),
            "unsnapshot": lambda: ("VE.DeleteSnapshot", api_pb2.SnapshotRef(ve=ref, tag=tag)),
            "restore": lambda: ("VE.Restore", api_pb2.SnapshotRef(ve=ref, tag=tag)),
            "untag": lambda: ("Image.Delete", api_pb2.ImageRef(name=image)),
            "prefetch": lambda: ("Image.SetPrefetch", self._prefetch(image, b)),
            "policy": lambda: ("VE.Set", self._policy(ref, b)),
            "disarm": lambda: ("Switch.Disarm", hostlife_pb2.DisarmRequest(for_s=1 + b / 100)),
            "arm": lambda: ("Switch.Arm", hostlife_pb2.ArmRequest()),
            "resume moves": lambda: ("Switch.ResumeMoves", hostlife_pb2.ResumeMovesRequest()),
            "project": lambda: ("Project.Create", api_pb2.CreateProjectRequest(name=f"p{b % 3}")),
        }
        return make[what]()

    def _create(self, name: str, number: int, b: int, c: int) -> api_pb2.CreateVERequest:
        spec = types_pb2.VESpec(
            image=f"base{c % 2}",
            cpu=CPU,
            memory_bytes=MEMORY_BYTES,
            disk_bytes=DISK_BYTES,
            pids=PIDS,
            run="running",
        )
        if b // 10 < self._world.story.knobs.fenced:
            spec.on_host_loss = "recreate"
        if b % 5 == 0:
            spec.host = f"h{c % self._world.story.knobs.hosts}"
        if b % 7 == 0:
            spec.ip = f"10.66.0.{10 + c % 4}"
        return api_pb2.CreateVERequest(
            ve=types_pb2.VE(name=name, spec=spec), request_id=f"r{number}"
        )

    def _undelete(self, ref: api_pb2.VERef, b: int) -> api_pb2.UndeleteVERequest:
        name = f"v{b % self._world.story.knobs.names}" if b % 3 == 0 else ""
        return api_pb2.UndeleteVERequest(ve=ref, name=name)

    def _policy(self, ref: api_pb2.VERef, b: int) -> api_pb2.SetVERequest:
        spec = types_pb2.VESpec(on_host_loss="recreate" if b % 2 else "stay")
        return api_pb2.SetVERequest(ve=ref, spec=spec, fields=["on_host_loss"])

    def _set(self, ref: api_pb2.VERef, b: int, c: int) -> api_pb2.SetVERequest:
        spec, fields = types_pb2.VESpec(), []
        if b % 2:
            spec.memory_bytes = (1 + c % 2) * GIB
            fields.append("memory_bytes")
        else:
            spec.disk_bytes = (1 + c % 2) * GIB
            spec.net_in_bps = (c % 3) * 8_000_000
            fields += ["disk_bytes", "net_in_bps"]
        return api_pb2.SetVERequest(ve=ref, spec=spec, fields=fields, restart=b % 5 == 0)

    def _clone(self, ref: api_pb2.VERef, number: int, b: int, tag: str) -> api_pb2.CloneVERequest:
        name = f"v{(b // 3) % self._world.story.knobs.names}"
        return api_pb2.CloneVERequest(
            source=ref,
            snapshot=tag if b % 2 else "",
            ve=types_pb2.VE(name=name),
            request_id=f"r{number}",
        )

    def _prefetch(self, image: str, b: int) -> api_pb2.SetPrefetchRequest:
        host = f"h{b % self._world.story.knobs.hosts}"
        return api_pb2.SetPrefetchRequest(name=image, prefetch=types_pb2.Prefetch(hosts=[host]))

    def _note_asked(self, what: str, request: Any) -> None:
        """So that nothing happens that nobody asked for."""
        checks = self._checks
        if what == "delete":
            checks.asked_to_delete.add(request.ve.name)
        if what == "purge" or (what == "delete" and request.purge):
            name = request.name if what == "purge" else request.ve.name
            checks.asked_to_delete.add(name)
            checks.asked_to_purge.add(name)
        counted = COUNTED.get(what)
        if counted is not None and (what != "set" or request.restart):
            checks.asked[counted] += 1

    def _note_refused(self, what: str, request: Any) -> None:
        """It was surely not done."""
        counted = COUNTED.get(what)
        if counted is not None and (what != "set" or request.restart):
            self._checks.asked[counted] -= 1

    # How.

    async def _call(self, node: str, method: str, request: Any) -> Any:
        """Follows the leader as vectl does; what may have been done is not asked again."""
        for _ in range(TRIES):
            target = self._leader
            try:
                return await self._once(node, target, method, request)
            except grpc.aio.AioRpcError as error:
                found = dict(error.trailing_metadata() or ())
                leader = str(found.get(LEADER_KEY, "")).partition(":")[0]
                self._leader = leader or self._next(target)
                wrong = from_rpc(error)
                if not isinstance(wrong, Unavailable) or not _surely_not_done(wrong, leader):
                    raise wrong from None
            await self._world.operators.clock.sleep(0.3)
        raise Unavailable("no controller leads")

    async def _once(self, node: str, target: str, method: str, request: Any) -> Any:
        world = self._world
        async with Channel(world.network, world.operators, node, target) as channel:
            call = channel.call(method)
            try:
                async with asyncio.timeout(CALL_S):
                    await call.write(request)
                    return await call.read()
            except TimeoutError:
                self._leader = self._next(target)
                raise Unavailable("no answer in time") from None
            except asyncio.InvalidStateError:
                self._leader = self._next(target)
                return await call.read()

    def _next(self, target: str) -> str:
        count = self._world.story.knobs.controllers
        return f"c{(int(target[1:]) + 1) % count}" if target.startswith("c") else "c0"

    # What was promised.

    def _acknowledged(self, what: str, request: Any, answer: Any) -> None:
        """[S2] What is acknowledged is in the store, and stays until somebody changes it."""
        if isinstance(answer, types_pb2.VE):
            uid = Uid(answer.uid)
            left = (keys.ve_left(HostName(host), uid) for host in self._world.hosts)
            wrote = {
                (key, answer.resource_version)
                for key in (keys.ve_spec(uid), keys.ve_deleted(uid), *left)
            }
            self._checks.demand(
                "what is acknowledged is written",
                wrote & self._checks.truth.written,
                f"{what} of {uid} at {answer.resource_version}",
            )
            self._world.promised(what, request, answer)


def _surely_not_done(error: VerackError, leader: str) -> bool:
    return (
        bool(leader)
        or "does not lead" in error.message
        or "no controller leads" in error.message
        or "failed to connect" in error.message
    )


def _shown(request: Any) -> str:
    return " ".join(str(request).split())[:100]
