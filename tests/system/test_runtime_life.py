"""Real VEs: how they start, end, and are found again."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.realves import MIB, Lab, lab
from veagent.ports import EndKind, Instance, StartPlan
from veagent.runtime import adopt, procs, rundir
from veagent.runtime.launch import ENVIRONMENT
from veapi.errors import Conflict, InvalidInput, RemoteFailed
from veapi.model import Limits

pytestmark = pytest.mark.skipif(shutil.which("lxc-start") is None, reason="lxc is not installed")


@pytest.fixture
async def ves() -> AsyncIterator[Lab]:
    async with lab() as made:
        yield made
    assert made.groups() == []
    assert made.processes() == []


def host_uid(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def freeze(ves: Lab, instance: Instance) -> None:
    freezer = Path("/sys/fs/cgroup/freezer", ves.runtime.cgroups.container(instance.uid))
    if not freezer.exists():
        pytest.skip("no v1 freezer")
    (freezer / "freezer.state").write_text("FROZEN")


def replace_init(plan: StartPlan, script: str) -> None:
    init = plan.root / "sbin/init"
    init.unlink()
    init.write_text(f"#!/bin/sh\n{script}\n")
    init.chmod(0o755)


async def in_background(ves: Lab, instance: Instance, script: str) -> None:
    """Begins a script inside that outlives who began it."""
    begin = f"setsid sh -c 'touch /began; {script}' >/dev/null 2>&1 </dev/null &"
    wait = "until [ -e /began ]; do sleep 0.01; done"
    assert (await ves.run(instance, "sh", "-c", f"{begin} {wait}")).code == 0


async def test_a_started_ve_has_its_own_init_ids_and_hostname(ves: Lab) -> None:
    plan = ves.plan(hostname="alpha", environment={"COLOUR": "blue and green"})
    instance = await ves.runtime.start(plan)
    assert procs.program(instance.init_pid) == "busybox"
    assert host_uid(instance.init_pid) == plan.id_base
    assert (await ves.run(instance, "hostname")).out == "alpha\n"
    assert (await ves.run(instance, "id", "-u")).out == "0\n"
    assert b"COLOUR=blue and green" in environment(instance.init_pid)
    await eventually(lambda: "alpha: up" in ves.runtime.console(plan.uid).read_text())


async def test_files_that_the_ve_makes_are_not_shifted_on_disk(ves: Lab) -> None:
    plan = ves.plan()
    instance = await ves.runtime.start(plan)
    assert (await ves.run(instance, "touch", "/root/mine")).code == 0
    assert (plan.root / "root/mine").stat().st_uid == 0


async def test_a_killed_init_is_a_crash_with_its_signal(ves: Lab) -> None:
    instance = await ves.runtime.start(ves.plan())
    os.kill(instance.init_pid, signal.SIGKILL)
    ended = await instance.ended()
    assert ended.kind is EndKind.CRASH
    assert ended.wait_status == signal.SIGKILL
    assert ves.groups() == []


@pytest.mark.parametrize(
    ("command", "kind"), [("poweroff", EndKind.HALT), ("reboot", EndKind.REBOOT)]
)
async def test_an_end_from_inside_is_told_apart(ves: Lab, command: str, kind: EndKind) -> None:
    instance = await ves.runtime.start(ves.plan())
    await ves.run(instance, command)
    assert (await instance.ended()).kind is kind
    assert ves.groups() == []


@pytest.mark.parametrize(("code", "kind"), [(0, EndKind.HALT), (7, EndKind.CRASH)])
async def test_an_init_that_exits_is_judged_by_its_code(ves: Lab, code: int, kind: EndKind) -> None:
    plan = ves.plan()
    replace_init(plan, f"sleep 0.5; exit {code}")
    instance = await ves.runtime.start(plan)
    ended = await instance.ended()
    assert (ended.kind, ended.wait_status) == (kind, code << 8)


async def test_a_ve_starts_again_after_a_reboot_with_a_writable_root(ves: Lab) -> None:
    plan = ves.plan()
    instance = await ves.runtime.start(plan)
    await ves.run(instance, "reboot")
    await instance.ended()
    again = await ves.runtime.start(plan)
    assert (await ves.run(again, "touch", "/root/mine")).code == 0


async def test_stop_asks_init_first(ves: Lab) -> None:
    instance = await ves.runtime.start(ves.plan())
    await ves.runtime.stop(instance, timeout_s=30)
    assert (await instance.ended()).kind is EndKind.HALT


async def test_stop_kills_an_init_that_does_not_listen(ves: Lab) -> None:
    plan = ves.plan()
    replace_init(plan, "while :; do sleep 1; done")
    instance = await ves.runtime.start(plan)
    await ves.runtime.stop(instance, timeout_s=0.2)
    assert (await instance.ended()).kind is EndKind.CRASH


async def test_stop_ends_a_frozen_ve(ves: Lab) -> None:
    instance = await ves.runtime.start(ves.plan())
    freeze(ves, instance)
    with pytest.raises(Conflict, match="frozen"):
        await ves.run(instance, "true")
    await ves.runtime.stop(instance, timeout_s=0)
    assert ves.groups() == []


def freezer_state(ves: Lab, instance: Instance, below: str) -> str:
    top = Path("/sys/fs/cgroup/freezer", ves.runtime.cgroups.container(instance.uid))
    return (top / below / "freezer.state").read_text().strip()


FREEZE_OURSELVES = """
for pid in $(cat /tmp/f/cgroup.procs); do
    [ $pid -gt {above} ] && [ $pid != $$ ] && echo $pid >/tmp/f/one/two/cgroup.procs
done
echo FROZEN >/tmp/f/one/two/freezer.state
echo FROZEN >/tmp/f/one/freezer.state
"""


@pytest.mark.parametrize("above", [0, 1], ids=["init and all", "all but init"])
async def test_a_ve_that_froze_itself_is_killed_all_the_same(ves: Lab, above: int) -> None:
    """On v1 what is frozen does not even die of SIGKILL."""
    instance = await ves.runtime.start(ves.plan())
    await in_background(ves, instance, "sleep 1000")
    make = "mkdir /tmp/f && mount -t cgroup -o freezer f /tmp/f && mkdir -p /tmp/f/one/two"
    if (await ves.run(instance, "sh", "-c", make)).code != 0:
        pytest.skip("root inside can't make a freezer")
    await ves.run(instance, "sh", "-c", FREEZE_OURSELVES.format(above=above))
    assert freezer_state(ves, instance, "one/two") == "FROZEN"
    await asyncio.wait_for(ves.runtime.stop(instance, timeout_s=0), 10.0)
    assert ves.groups() == []
    assert not procs.lives(instance.init_pid)


async def test_a_second_start_of_a_running_ve_is_refused(ves: Lab) -> None:
    plan = ves.plan()
    instance = await ves.runtime.start(plan)
    with pytest.raises(Conflict):
        await ves.runtime.start(plan)
    assert procs.lives(instance.init_pid)


async def test_a_ve_that_runs_unknown_to_its_agent_is_taken_over_by_a_start(ves: Lab) -> None:
    plan = ves.plan()
    before = await ves.runtime.start(plan)
    await ves.runtime.aclose()
    ves.runtime = ves.another_runtime()
    await ves.runtime.setup()
    after = await ves.runtime.start(plan)
    assert after.init_pid == before.init_pid
    await ves.runtime.stop(after, timeout_s=0)
    assert ves.groups() == []


async def test_a_ve_that_runs_unknown_to_its_agent_is_ended_when_it_is_forgotten(ves: Lab) -> None:
    plan = ves.plan()
    before = await ves.runtime.start(plan)
    await ves.runtime.aclose()
    ves.runtime = ves.another_runtime()
    await ves.runtime.setup()
    await ves.runtime.forget(plan.uid)
    assert not procs.lives(before.init_pid)
    assert ves.groups() == []
    assert not (ves.folder / "lxc" / plan.uid).exists()


async def test_a_restarted_agent_adopts_what_runs(ves: Lab) -> None:
    instances = [await ves.runtime.start(ves.plan()) for _ in range(3)]
    await ves.runtime.aclose()
    ves.runtime = ves.another_runtime()
    await ves.runtime.setup()
    adopted = {instance.uid: instance for instance in await ves.runtime.adopt()}
    assert adopted.keys() == {instance.uid for instance in instances}
    for before in instances:
        after = adopted[before.uid]
        assert after.init_pid == before.init_pid
        assert after.started_at == before.started_at
    assert (await ves.run(adopted[instances[0].uid], "true")).code == 0
    await ves.run(adopted[instances[1].uid], "poweroff")
    assert (await adopted[instances[1].uid].ended()).kind is EndKind.HALT


async def test_a_start_that_outlived_its_agent_is_adopted(ves: Lab) -> None:
    plan = ves.plan()
    await ves.runtime.stop(await ves.runtime.start(plan), timeout_s=0)
    for delay_s in (0.001, 0.004, 0.008, 0.012):
        process = await lxc_start(ves, plan)
        await asyncio.sleep(delay_s)
        adopted = await ves.runtime.adopt()
        assert [instance.uid for instance in adopted] == [plan.uid]
        assert await process.wait() == 0
        assert procs.lives(adopted[0].init_pid)
        await ves.runtime.stop(adopted[0], timeout_s=0)


def lxc_start(ves: Lab, plan: StartPlan) -> Awaitable[asyncio.subprocess.Process]:
    """As an agent that dies right after it."""
    ves.runtime.cgroups.create(plan.uid, plan.limits)
    argv = ("-P", str(ves.folder / "lxc"), "-n", plan.uid, "-d")
    program = shutil.which("lxc-start") or ""
    return asyncio.create_subprocess_exec(program, *argv, env=ENVIRONMENT)


async def test_a_start_that_hangs_when_its_agent_comes_back_is_ended(ves: Lab) -> None:
    plan = ves.plan()
    await ves.runtime.stop(await ves.runtime.start(plan), timeout_s=0)
    config = ves.folder / "lxc" / plan.uid / "config"
    config.unlink()
    os.mkfifo(config)  # it waits for who writes
    process = await lxc_start(ves, plan)
    assert await ves.runtime.adopt() == []
    assert await process.wait() == -signal.SIGKILL
    config.unlink()
    assert [line for line in ves.processes() if plan.uid in line] == []
    assert ves.groups() == []
    assert procs.lives((await ves.runtime.start(plan)).init_pid)


async def test_a_monitor_that_has_no_init_when_its_agent_comes_back_is_ended(ves: Lab) -> None:
    plan = ves.plan()
    await ves.runtime.stop(await ves.runtime.start(plan), timeout_s=0)
    with (ves.folder / "lxc" / plan.uid / "config").open("a") as config:
        config.write("lxc.hook.pre-start = /bin/sleep 12345\n")
    process = await lxc_start(ves, plan)
    await eventually(lambda: adopt.scan(ves.folder / "lxc").monitors)
    monitor = adopt.scan(ves.folder / "lxc").monitors[plan.uid]
    await eventually(lambda: procs.children(monitor))
    (hook,) = procs.children(monitor)
    try:
        assert await ves.runtime.adopt() == []
        assert not procs.lives(monitor)
        await process.wait()
        assert [line for line in ves.processes() if plan.uid in line] == []
        assert ves.groups() == []
    finally:
        os.kill(hook, signal.SIGKILL)
    assert procs.lives((await ves.runtime.start(plan)).init_pid)


async def test_adoption_twice_gives_the_same_ves(ves: Lab) -> None:
    instance = await ves.runtime.start(ves.plan())
    assert list(await ves.runtime.adopt()) == [instance]


async def test_a_killed_monitor_leaves_nothing_and_the_ve_starts_again(ves: Lab) -> None:
    plan = ves.plan()
    instance = await ves.runtime.start(plan)
    os.kill(procs.parent(instance.init_pid), signal.SIGKILL)
    assert (await instance.ended()).kind is EndKind.CRASH
    assert ves.groups() == []
    again = await ves.runtime.start(plan)
    assert procs.lives(again.init_pid)


async def test_leftovers_of_a_monitor_that_died_while_the_agent_was_away_are_removed(
    ves: Lab,
) -> None:
    plan = ves.plan()
    instance = await ves.runtime.start(plan)
    await ves.runtime.aclose()
    monitor = procs.parent(instance.init_pid)
    os.kill(monitor, signal.SIGKILL)
    await eventually(lambda: not procs.lives(monitor) and not procs.lives(instance.init_pid))
    assert ves.groups()
    ves.runtime = ves.another_runtime()
    await ves.runtime.setup()
    assert await ves.runtime.adopt() == []
    assert ves.groups() == []


ENDS = {
    "poweroff": EndKind.HALT,
    "reboot": EndKind.REBOOT,
    "kill -USR2 1": EndKind.HALT,
    "exit 0": EndKind.HALT,
    "exit 7": EndKind.CRASH,
    "": EndKind.CRASH,
}


@pytest.mark.parametrize("how", ENDS)
async def test_how_a_ve_ended_while_the_agent_was_away_is_known_when_it_is_back(
    ves: Lab, how: str
) -> None:
    plan = ves.plan()
    if how.startswith("exit"):
        replace_init(plan, f"while [ ! -e /go ]; do sleep 0.05; done; {how}")
    instance = await ves.runtime.start(plan)
    monitor = procs.parent(instance.init_pid)
    await in_background(ves, instance, f"sleep 0.3; touch /go; {how}")
    assert ves.runtime.last_end(plan.uid) is None
    await ves.runtime.aclose()
    if not how:
        os.kill(instance.init_pid, signal.SIGKILL)
    await eventually(lambda: not procs.lives(monitor), timeout_s=10)
    ves.runtime = ves.another_runtime()
    await ves.runtime.setup()
    assert await ves.runtime.adopt() == []
    ended = ves.runtime.last_end(plan.uid)
    assert ended is not None
    assert ended.kind is ENDS[how]
    (plan.root / "go").unlink(missing_ok=True)
    await ves.runtime.start(plan)
    assert ves.runtime.last_end(plan.uid) is None


async def test_commands_leave_no_lines_in_the_log_of_a_ve(ves: Lab) -> None:
    instance = await ves.runtime.start(ves.plan())
    log = rundir.log(ves.folder / "lxc", instance.uid)
    assert (
        await ves.run(instance, "true")
    ).code == 0  # what belongs to the start is written by now
    before = log.read_text()
    for _ in range(5):
        assert (await ves.run(instance, "true")).code == 0
    assert log.read_text() == before


async def test_a_start_removes_leftovers_of_its_ve(ves: Lab) -> None:
    plan = ves.plan()
    instance = await ves.runtime.start(plan)
    await ves.runtime.aclose()
    monitor = procs.parent(instance.init_pid)
    os.kill(monitor, signal.SIGKILL)
    await eventually(lambda: not procs.lives(monitor) and not procs.lives(instance.init_pid))
    ves.runtime = ves.another_runtime()
    await ves.runtime.setup()
    assert procs.lives((await ves.runtime.start(plan)).init_pid)


async def test_a_failed_start_says_why_and_leaves_nothing(ves: Lab) -> None:
    plan = ves.plan()
    (plan.root / "sbin/init").unlink()
    with pytest.raises(RemoteFailed, match="/sbin/init") as caught:
        await ves.runtime.start(plan)
    assert "no /sbin/init" in caught.value.hint
    assert ves.groups() == []
    assert not (ves.folder / "lxc" / plan.uid).exists()
    assert [line for line in ves.processes() if plan.uid in line] == []


async def test_a_cut_start_leaves_nothing(ves: Lab) -> None:
    for delay_s in (0.001, 0.005, 0.01, 0.02, 0.03):
        plan = ves.plan()
        task = asyncio.create_task(ves.runtime.start(plan))
        await asyncio.sleep(delay_s)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert [line for line in ves.processes() if plan.uid in line] == []
            assert ves.groups() == []
        else:
            await ves.runtime.stop(task.result(), timeout_s=0)


async def test_limits_that_the_kernel_refuses_make_the_start_fail(ves: Lab) -> None:
    plan = ves.plan(limits=Limits(cpu_millis=10**15, memory_bytes=64 * MIB, pids=64))
    with pytest.raises(RemoteFailed, match="cgroup"):
        await ves.runtime.start(plan)
    assert ves.groups() == []


async def test_forget_removes_the_folder_but_not_of_a_running_ve(ves: Lab) -> None:
    plan = ves.plan()
    instance = await ves.runtime.start(plan)
    with pytest.raises(Conflict):
        await ves.runtime.forget(plan.uid)
    await ves.runtime.stop(instance, timeout_s=0)
    assert ves.runtime.console(plan.uid).exists()
    await ves.runtime.forget(plan.uid)
    await ves.runtime.forget(plan.uid)
    assert not (ves.folder / "lxc" / plan.uid).exists()


async def test_a_uid_that_is_no_uid_touches_nothing(ves: Lab) -> None:
    plan = ves.plan()
    for uid in ("../etc", "-n", "a b", "", "a\nlxc.hook.pre-start = x"):
        with pytest.raises(InvalidInput):
            await ves.runtime.start(replace(plan, uid=uid))  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            await ves.runtime.forget(uid)  # type: ignore[arg-type]


async def test_twenty_starts_at_once(ves: Lab) -> None:
    plans = [ves.plan() for _ in range(20)]
    instances = await asyncio.gather(*(ves.runtime.start(plan) for plan in plans))
    assert len({instance.init_pid for instance in instances}) == 20
    await asyncio.gather(*(ves.runtime.stop(instance, timeout_s=0) for instance in instances))
    assert ves.groups() == []


async def test_a_full_console_keeps_its_end_within_its_cap(ves: Lab) -> None:
    instance = await ves.runtime.start(ves.plan())
    flood = "dd if=/dev/zero bs=1024 count=3000 2>/dev/null | tr '\\0' x >/dev/console; echo; echo the end >/dev/console"
    assert (await ves.run(instance, "sh", "-c", flood)).code == 0
    log = ves.runtime.console(instance.uid)
    await eventually(lambda: "the end" in log.read_text())
    assert sum(path.stat().st_size for path in log.parent.glob("console*")) <= 2 * MIB
