"""The keeper of groups over a model store: what it writes, what is in its way, and that a second one makes nothing twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kit.apirig import ALPINE, NO_CONTEXT, ApiRig, api_rig
from kit.eventually import eventually
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import VE, HostName, Project, ProjectAmounts, VEReport, VEState, VEStatus
from veapi.v1 import api_pb2, group_pb2, types_pb2
from vecontroller.api.create import Creator
from vecontroller.api.group import GroupService
from vecontroller.groups.keeper import Keeper
from vecontroller.observed import of_report
from vecontroller.store import keys, values
from vecontroller.store.port import Delete

KEY = ("default", "web")
REF = group_pb2.GroupRef(name="web")
CHANGED = api_pb2.ApplyVEResponse.OUTCOME_CHANGED
LARGE = {"env": {f"A{number}": "b" * 88 for number in range(43)}, "command": ["c" * 4090]}
UNCHANGED = api_pb2.ApplyVEResponse.OUTCOME_UNCHANGED


class GroupRig:
    """A keeper that looks when it is told to, and a host that does what it shall when it is told to."""

    def __init__(self, rig: ApiRig) -> None:
        self.rig = rig
        self.keeper = self.another()
        self.service = GroupService(rig.deps, self.keeper)

    def another(self) -> Keeper:
        """As of the next leader: it remembers nothing."""
        return Keeper(self.rig.deps, self.rig.in_flight, Creator(self.rig.deps, self.rig.in_flight))

    async def apply(self, replicas: int = 2, *, dry_run: bool = False, **fields):
        options = {
            name: fields.pop(name)
            for name in ("max_unavailable", "min_ready", "progress_deadline", "paused")
            if name in fields
        }
        spec = types_pb2.VESpec(**{"image": "debian", **fields})
        template = group_pb2.GroupTemplate(labels={"app": "web"}, spec=spec)
        options = {"min_ready": 0.0, **options}
        asked = group_pb2.GroupSpec(replicas=replicas, template=template, **options)
        group = group_pb2.Group(name="web", spec=asked)
        request = group_pb2.ApplyGroupRequest(group=group, dry_run=dry_run)
        return await self.service.Apply(request, NO_CONTEXT)

    async def look(self, keeper: Keeper | None = None) -> None:
        await (keeper or self.keeper).look(KEY)

    @property
    def ves(self) -> dict[str, VE]:
        view = self.rig.mirror.view
        return {view.ves[uid].value.name: view.ves[uid].value for uid in view.members.get(KEY, ())}

    async def obey(self, *but: str) -> None:
        """All hosts have done what is asked of their VEs, but for those named, which fail."""
        for ve in self.ves.values():
            if ve.uid not in self.rig.mirror.view.placements:
                await self.rig.place(ve.uid)
            if ve.delete_requested_at is not None:
                await self.rig.remove(ve.uid)
                continue
            state = VEState.FAILED if ve.name in but else VEState.RUNNING
            await self.rig.report(
                ve.uid,
                state,
                observed_generation=ve.generation,
                observed_restart_seq=ve.restart_seq,
                observed_root_seq=ve.root.seq,
                started_at=self.rig.clock.wall(),
            )

    async def keep(self, name: str) -> None:
        """h1 says that it is down, and that its root is kept."""
        status = VEStatus(state=VEState.STOPPED, placement_generation=1)
        report = VEReport(uid=self.ves[name].uid, name="", project="", status=status, kept=True)
        until = self.rig.clock.wall() + 86_400
        change = of_report(self.rig.mirror.view, HostName("h1"), report, purge_at=until)
        assert change is not None
        await self.rig.deps.writer.commit(change.guards, change.writes, confirm=None)

    async def settle(self) -> None:
        for _ in range(20):
            await self.look()
            await self.obey()
        await self.look()

    async def show(self) -> group_pb2.Group:
        return await self.service.Get(REF, NO_CONTEXT)


@pytest.fixture
async def web() -> AsyncIterator[GroupRig]:
    async with api_rig() as rig:
        yield GroupRig(rig)


async def test_an_applied_group_gets_its_ves_and_is_ready_when_they_run(web: GroupRig) -> None:
    answer = await web.apply(3)
    assert answer.outcome == api_pb2.ApplyVEResponse.OUTCOME_CREATED
    await web.look()
    assert sorted(web.ves) == ["web-0", "web-1", "web-2"]
    assert {ve.group_revision for ve in web.ves.values()} == {1}
    assert (await web.show()).status.state == "Progressing"
    await web.settle()
    shown = await web.show()
    assert (shown.status.state, shown.status.available, shown.status.revision) == ("Ready", 3, 1)
    assert [event.reason for event in shown.status.events] == ["Making", "RolloutComplete"]
    assert (await web.apply(3)).outcome == UNCHANGED


async def test_a_second_keeper_that_looks_at_the_same_time_makes_nothing_twice(
    web: GroupRig,
) -> None:
    await web.apply(4)
    await asyncio.gather(web.look(), web.look(web.another()), web.look(web.another()))
    assert sorted(web.ves) == [f"web-{ordinal}" for ordinal in range(4)]
    assert len(web.rig.mirror.view.addresses) == 4


async def test_a_dry_run_tells_what_would_change_and_writes_nothing(web: GroupRig) -> None:
    await web.apply(2)
    answer = await web.apply(3, dry_run=True, memory_bytes=2 << 30)
    assert answer.outcome == CHANGED
    assert {change.field for change in answer.changes} == {
        "spec.replicas",
        "spec.template.spec.memory_bytes",
    }
    assert web.rig.mirror.view.groups[KEY].value.replicas == 2


async def test_what_can_change_live_is_changed_without_a_restart_and_the_rest_with_one(
    web: GroupRig,
) -> None:
    await web.apply(1)
    await web.settle()
    await web.apply(1, memory_bytes=2 << 30)
    await web.look()
    (ve,) = web.ves.values()
    assert (ve.spec.memory_bytes, ve.restart_seq, ve.root.seq, ve.generation) == (2 << 30, 0, 0, 2)
    await web.settle()
    await web.apply(1, memory_bytes=2 << 30, env={"A": "b"})
    await web.look()
    (ve,) = web.ves.values()
    assert (dict(ve.spec.env), ve.restart_seq, ve.root.seq) == ({"A": "b"}, 1, 0)


async def test_another_image_makes_a_new_root_and_keeps_name_and_address(web: GroupRig) -> None:
    await web.rig.put_image("alpine", ALPINE)
    await web.apply(1)
    await web.settle()
    (before,) = web.ves.values()
    await web.apply(1, image="alpine")
    await web.look()
    (after,) = web.ves.values()
    assert (after.uid, after.ip, after.name) == (before.uid, before.ip, before.name)
    assert (after.image_digest, after.root.seq) == (ALPINE, 1)


async def test_ves_that_are_made_later_have_the_image_that_the_tag_meant_then(
    web: GroupRig,
) -> None:
    await web.apply(1)
    await web.look()
    first = web.ves["web-0"].image_digest
    await web.rig.put_image("debian", ALPINE)
    await web.service.Scale(group_pb2.ScaleGroupRequest(group=REF, replicas=2), NO_CONTEXT)
    await web.look()
    assert web.ves["web-1"].image_digest == first != ALPINE


async def test_a_rollout_without_progress_is_stopped_with_its_reason_and_can_be_tried_again(
    web: GroupRig,
) -> None:
    await web.apply(2, progress_deadline=60.0)
    await web.settle()
    await web.apply(2, progress_deadline=60.0, pids=99)
    await web.look()
    await web.obey("web-1")
    await web.look()
    web.rig.clock.now += 61
    await web.look()
    shown = await web.show()
    assert shown.status.state == "Stopped"
    assert "no further VE became available with revision 2 for 60 s: web-1" in shown.status.message
    await web.obey()
    await web.look(web.another())
    assert web.ves["web-0"].group_revision == 1, "also the next leader leaves it stopped"
    resumed = await web.service.Resume(REF, NO_CONTEXT)
    again = await web.service.Resume(REF, NO_CONTEXT)
    assert again.generation == resumed.generation, "this try is not given up yet"
    await web.settle()
    assert (await web.show()).status.state == "Ready"
    assert {ve.group_revision for ve in web.ves.values()} == {2}


async def test_undo_goes_back_as_a_new_revision_and_again_forward(web: GroupRig) -> None:
    await web.apply(2)
    await web.settle()
    await web.apply(2, pids=99)
    await web.settle()
    for pids, numbers in ((512, [2, 3]), (99, [3, 4])):
        shown = await web.service.Undo(group_pb2.UndoGroupRequest(group=REF), NO_CONTEXT)
        assert [each.number for each in shown.revisions] == numbers
        await web.settle()
        assert {ve.spec.pids for ve in web.ves.values()} == {pids}
    with pytest.raises(NotFound, match="no revision 1"):
        await web.service.Undo(group_pb2.UndoGroupRequest(group=REF, revision=1), NO_CONTEXT)


async def test_the_last_ten_revisions_are_kept(web: GroupRig) -> None:
    for pids in range(100, 112):
        await web.apply(1, pids=pids)
    shown = await web.show()
    assert [each.number for each in shown.revisions] == list(range(3, 13))


async def test_a_name_that_another_ve_has_is_the_reason_that_is_shown(web: GroupRig) -> None:
    await web.rig.create("web-0")
    await web.apply(2)
    await web.look()
    shown = await web.show()
    assert list(web.ves) == ["web-1"]
    assert shown.status.reason == "Conflict"
    assert "name web-0 is taken" in shown.status.message
    for _ in range(5):
        await web.look()
    warnings = [event for event in (await web.show()).status.events if event.type == "Warning"]
    assert len(warnings) == 1, "told once"


async def test_a_quota_refuses_what_is_too_many_and_is_the_reason(web: GroupRig) -> None:
    project = Project(name="default", created_at=1.0, quota=ProjectAmounts(ves=1))
    await web.rig.put(keys.project("default"), values.encode_project(project))
    await web.apply(2)
    await web.look()
    assert len(web.ves) == 1
    assert "quota" in (await web.show()).status.message


async def test_a_ve_that_was_brought_back_is_its_own_and_its_name_is_taken_for_the_group(
    web: GroupRig,
) -> None:
    await web.apply(2)
    await web.settle()
    await web.service.Scale(group_pb2.ScaleGroupRequest(group=REF, replicas=1), NO_CONTEXT)
    await web.look()
    await web.keep("web-1")
    back = api_pb2.UndeleteVERequest(ve=api_pb2.VERef(name="web-1"))
    assert (await web.rig.ve.Undelete(back, NO_CONTEXT)).group == ""
    await web.service.Scale(group_pb2.ScaleGroupRequest(group=REF, replicas=2), NO_CONTEXT)
    for _ in range(3):
        await web.look()
    shown = await web.show()
    assert list(web.ves) == ["web-0"]
    assert "name web-1 is taken" in shown.status.message
    assert [event.reason for event in shown.status.events].count("Making") == 1


async def test_a_ve_that_is_too_young_is_not_available_yet(web: GroupRig) -> None:
    await web.apply(1, min_ready=30.0)
    await web.look()
    await web.obey()
    await web.look()
    assert (await web.show()).status.members[0].message == "it has not run for 30 s yet"
    web.rig.clock.now += 31
    assert (await web.show()).status.available == 1


async def test_what_ran_before_a_new_leader_began_is_not_too_young_for_it(web: GroupRig) -> None:
    await web.apply(1, min_ready=30.0)
    await web.look()
    await web.obey()
    web.rig.clock.now += 31
    group = web.rig.mirror.view.groups[KEY].value
    assert [each.available for each in web.another().members(group)] == [True]


async def test_a_group_that_is_deleted_takes_its_ves_along_and_goes_last(web: GroupRig) -> None:
    await web.apply(2)
    await web.settle()
    await web.service.Delete(group_pb2.DeleteGroupRequest(group=REF, purge=True), NO_CONTEXT)
    with pytest.raises(Conflict, match="is being deleted"):
        await web.apply(3)
    await web.look()
    assert all(ve.delete_requested_at and ve.purge for ve in web.ves.values())
    await web.look()
    assert KEY in web.rig.mirror.view.groups
    await web.obey()
    await web.look()
    assert KEY not in web.rig.mirror.view.groups
    assert KEY not in web.rig.mirror.view.group_statuses


async def test_a_ve_whose_deletion_is_taken_back_while_its_group_goes_belongs_to_itself(
    web: GroupRig,
) -> None:
    await web.apply(1)
    await web.settle()
    await web.rig.outside.transact([], [Delete(key=keys.group(*KEY))])
    await eventually(lambda: KEY not in web.rig.mirror.view.groups)
    async with keeping(web):
        await eventually(lambda: KEY not in web.rig.mirror.view.members)
    (left,) = (held.value for held in web.rig.mirror.view.ves.values())
    assert (left.name, left.group, left.delete_requested_at) == ("web-0", "", None)


async def test_a_group_may_go_and_its_ves_stay(web: GroupRig) -> None:
    await web.apply(2)
    await web.settle()
    await web.service.Delete(group_pb2.DeleteGroupRequest(group=REF, keep_ves=True), NO_CONTEXT)
    await web.look()
    await web.look()
    assert web.ves == {}
    assert KEY not in web.rig.mirror.view.groups
    left = [held.value for held in web.rig.mirror.view.ves.values()]
    assert sorted(ve.name for ve in left) == ["web-0", "web-1"]
    assert all(ve.delete_requested_at is None and not ve.group for ve in left)


async def test_a_ve_of_a_group_is_changed_at_the_group_alone_but_stopped_by_anybody(
    web: GroupRig,
) -> None:
    await web.apply(1)
    await web.settle()
    ref = api_pb2.VERef(name="web-0")
    ask = api_pb2.SetVERequest(ve=ref, spec=types_pb2.VESpec(pids=99), fields=["pids"])
    with pytest.raises(Conflict, match="belongs to group web") as refused:
        await web.rig.ve.Set(ask, NO_CONTEXT)
    assert "vectl apply" in refused.value.hint
    with pytest.raises(Conflict, match="belongs to group web"):
        await web.rig.ve.Rename(api_pb2.RenameVERequest(ve=ref, name="x"), NO_CONTEXT)
    stopped = await web.rig.ve.SetRun(api_pb2.SetRunRequest(ve=ref, run="stopped"), NO_CONTEXT)
    assert stopped.spec.run == "stopped"
    await web.look()
    assert web.ves["web-0"].spec.run == "stopped", "nobody starts it again"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"replicas": 1001}, "replicas"),
        ({"max_unavailable": "0"}, "max_unavailable"),
        ({"max_unavailable": "101%"}, "max_unavailable"),
        ({"min_ready": float("nan")}, "min_ready"),
        ({"progress_deadline": 0.0}, "progress_deadline"),
        ({"ip": "10.66.0.9"}, "spec.template.spec.ip"),
        ({"run": "stopped"}, "spec.template.spec.run"),
        ({"memory_bytes": 1}, "memory"),
        (LARGE, "at most 8192"),
    ],
)
async def test_what_a_group_can_not_be_is_refused_by_field(
    web: GroupRig, fields: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        await web.apply(**fields)  # type: ignore[arg-type]
    assert KEY not in web.rig.mirror.view.groups


@asynccontextmanager
async def keeping(web: GroupRig) -> AsyncIterator[None]:
    task = asyncio.create_task(web.keeper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_tells_each_change_of_a_group_and_that_it_went(web: GroupRig) -> None:
    await web.apply(1)
    states = []
    async with keeping(web):
        async for change in web.service.Watch(REF, NO_CONTEXT):
            states.append("gone" if change.gone else change.group.status.state)
            await web.obey()
            if states[-1] == "Ready":
                await web.service.Delete(group_pb2.DeleteGroupRequest(group=REF), NO_CONTEXT)
    assert states[0] == "Progressing"
    assert {"Ready", "Deleting"} <= set(states)
    assert states[-1] == "gone"


async def test_only_what_concerns_a_group_is_written(web: GroupRig) -> None:
    await web.apply(2)
    await web.settle()
    revision = web.rig.mirror.view.revision
    for _ in range(3):
        await web.look()
    assert web.rig.mirror.view.revision == revision
