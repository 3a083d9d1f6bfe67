"""Safety: whatever happens, whoever folds a watch sees what a list shows."""

import asyncio
from contextlib import aclosing

from hypothesis import given
from hypothesis import strategies as st

from kit.apirig import NO_CONTEXT, ApiRig, api_rig, closable, create_request
from veapi.errors import VerackError
from veapi.model import HostName, Uid, VEReport, VEState, VEStatus
from veapi.v1 import api_pb2, types_pb2
from vecontroller.observed import of_report
from vecontroller.view import Changed

NAMES = ["a", "b", "c"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "create",
                "delete",
                "restart",
                "label",
                "place",
                "run",
                "refuse",
                "gone",
                "keep",
                "undelete",
                "rename",
                "wake",
                "read",
            ]
        ),
        st.sampled_from(NAMES),
    ),
    min_size=10,
    max_size=40,
)


class Follower:
    """Folds the changes of one watch."""

    def __init__(self) -> None:
        self.ves: dict[str, types_pb2.VE] = {}
        self.synced = False

    def take(self, change: api_pb2.VEChange) -> None:
        match change.kind:
            case api_pb2.VEChange.KIND_SYNCED:
                self.synced = True
            case api_pb2.VEChange.KIND_DELETED:
                del self.ves[change.ve.uid]
            case api_pb2.VEChange.KIND_ADDED:
                assert change.ve.uid not in self.ves
                self.ves[change.ve.uid] = change.ve
            case api_pb2.VEChange.KIND_CHANGED:
                assert self.ves[change.ve.uid] != change.ve
                self.ves[change.ve.uid] = change.ve


async def do(rig: ApiRig, step: str, name: str) -> None:
    ref = api_pb2.VERef(name=name)
    held = rig.mirror.view.names.get(("default", name))
    uid = held.value if held is not None else Uid("")
    match step:
        case "create":
            labels = {"tier": "web"} if name == "a" else {}
            await rig.ve.Create(create_request(name, labels=labels), NO_CONTEXT)
        case "delete":
            await rig.ve.Delete(api_pb2.DeleteVERequest(ve=ref), NO_CONTEXT)
        case "restart":
            await rig.ve.Restart(api_pb2.RestartRequest(ve=ref), NO_CONTEXT)
        case "label":
            ve = create_request(name, labels={"tier": "db"}).ve
            await rig.ve.Apply(api_pb2.ApplyVERequest(ve=ve), NO_CONTEXT)
        case "undelete":
            await rig.ve.Undelete(api_pb2.UndeleteVERequest(ve=ref), NO_CONTEXT)
        case "rename":
            other = NAMES[(NAMES.index(name) + 1) % len(NAMES)]
            await rig.ve.Rename(api_pb2.RenameVERequest(ve=ref, name=other), NO_CONTEXT)
        case "wake":
            rig.topic.publish(Changed(revision=rig.mirror.view.revision, relisted=True))
        case _ if uid:
            await happen(rig, step, uid)


async def happen(rig: ApiRig, step: str, uid: Uid) -> None:
    """What scheduler and hosts do to a VE that is there."""
    match step:
        case "place":
            await rig.place(uid)
        case "run" if uid in rig.mirror.view.placements:
            await rig.report(uid, VEState.RUNNING)
        case "keep" if uid in rig.mirror.view.placements:
            await keep(rig, uid)
        case "refuse":
            rig.refuse(uid, f"no room {len(rig.scheduler.refusals)}")
            rig.publish(uid)
        case "gone":
            await rig.remove(uid)


async def keep(rig: ApiRig, uid: Uid) -> None:
    """As a host does that was asked to."""
    status = VEStatus(state=VEState.STOPPED, disk_used_bytes=1)
    report = VEReport(uid=uid, name="", project="", status=status, kept=True)
    change = of_report(rig.mirror.view, HostName("h1"), report, purge_at=1e9)
    if change is not None:
        await rig.deps.writer.commit(change.guards, change.writes, confirm=None)


async def scenario(steps: list[tuple[str, str]], selector: str) -> None:
    async with api_rig() as rig:
        follower = Follower()
        request = api_pb2.WatchVEsRequest(selector=selector)
        split = len(steps) // 2
        for step, name in steps[:split]:
            await attempt(rig, step, name)
        async with aclosing(closable(rig.ve.Watch(request, NO_CONTEXT))) as changes:
            queue: asyncio.Queue[api_pb2.VEChange] = asyncio.Queue(maxsize=1)
            pumping = asyncio.create_task(pump(changes, queue))
            for step, name in steps[split:]:
                if step == "read":
                    await drain(queue, follower)
                else:
                    await attempt(rig, step, name)
            await drain(queue, follower)
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)
        listed = await rig.ve.List(api_pb2.ListVEsRequest(selector=selector), NO_CONTEXT)
        assert follower.synced
        assert sorted(follower.ves) == sorted(ve.uid for ve in listed.ves)
        assert all(follower.ves[ve.uid] == ve for ve in listed.ves)


async def pump(changes, queue: asyncio.Queue) -> None:
    """A reader that is never more than one change ahead."""
    async for change in changes:
        await queue.put(change)


async def drain(queue: asyncio.Queue, follower: Follower) -> None:
    """Takes all until nothing comes any more."""
    quiet = 0
    while quiet < 20:
        await asyncio.sleep(0)
        quiet += 1
        while not queue.empty():
            follower.take(queue.get_nowait())
            quiet = 0


async def attempt(rig: ApiRig, step: str, name: str) -> None:
    try:
        await do(rig, step, name)
    except VerackError:
        return  # refused: there is no such VE, or it is there already


@given(STEPS, st.sampled_from(["", "tier=web", "tier!=web"]))
def test_safety_a_folded_watch_is_what_a_list_shows(
    steps: list[tuple[str, str]], selector: str
) -> None:
    asyncio.run(scenario(steps, selector))
