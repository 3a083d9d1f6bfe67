"""An agent's core and a vefence on fakes: what becomes of fenced VEs, and of those that are not, when things fail."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.agenthost import U1, U2, AgentHost, entry, host_set
from kit.fencing import TIMING, F, fenced
from kit.managed import reasons
from veagent.manager import GRACE_S
from veapi.model import Action, SetEntry, VEState


class Life:
    """A host with its agent and vefence, and a controller that speaks when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.host = AgentHost(folder)
        self.revision = 0
        self.session = 0
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def boot(self) -> None:
        await self.host.boot()
        self._run("fence", self.host.fence.run())
        self._run("manager", self.host.manager.run())
        if "vefence" not in self.tasks:
            self._run("vefence", self.host.vefence.run())
        self.connect()

    def _run(self, name: str, work) -> None:
        self.tasks[name] = asyncio.create_task(work, name=name)

    async def crash(self) -> None:
        for name in ("fence", "manager"):
            self.tasks.pop(name).cancel()
        await self.host.crash()

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await self.host.close()

    def connect(self) -> None:
        """A new session."""
        self.host.manager.unheard()
        self.host.fence.agree(TIMING)
        self.session = self.host.fence.lapses

    def beat(self) -> None:
        self.host.fence.answered(self.host.clock.boot())

    async def set(self, *entries: SetEntry) -> None:
        self.revision += 1
        await self.host.manager.apply(host_set(self.revision, *entries))
        self.host.fence.heard(self.session)

    async def pass_(self, seconds: float, *, answered: bool) -> None:
        """Time passes, with heartbeats that are answered or not."""
        for _ in range(int(seconds / 0.5)):
            await self.host.clock.advance(0.5)
            if answered:
                self.beat()
        for _ in range(10):  # what threads still write
            await asyncio.sleep(0.005)
            await self.host.clock.settle()

    async def until_running(self, *uids) -> None:
        for _ in range(20):
            if all(self.state(uid) is VEState.RUNNING for uid in uids):
                return
            await self.host.clock.advance(0.1)
            await asyncio.sleep(0.01)
        assert [self.host.status(uid) for uid in uids] == []

    def state(self, uid=U1) -> VEState:
        return self.host.status(uid).state

    def lives(self, uid=U1) -> bool:
        return uid in self.host.runtime.running


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    made = Life(tmp_path)
    await made.host.hold_image()
    await made.boot()
    made.host.keeper.refresh()
    made.beat()
    yield made
    await made.close()


async def run_both(life: Life) -> None:
    await life.set(fenced(U1), entry(U2))
    await life.until_running(U1, U2)


async def test_a_fenced_ve_runs_armed_under_its_policy_generation(life):
    await life.set(fenced(policy=3), entry(U2))
    await life.until_running(U1, U2)
    assert life.host.status(U1).armed_generation == 3
    assert life.host.status(U2).armed_generation == 0
    assert "StartFailed" not in reasons(life.host)


async def test_a_host_that_hears_nothing_ends_the_fenced_ve_at_its_deadline_and_no_other(life):
    await run_both(life)
    before = life.host.status(U2).init_pid
    await life.pass_(F - 1, answered=False)
    assert life.lives(U1)
    await life.pass_(1, answered=False)
    assert not life.lives(U1)
    await life.host.until(lambda: life.host.status().reason == "AwaitsLease")
    assert life.state() is VEState.STOPPED
    assert reasons(life.host)[-1] == "Fenced"
    await life.pass_(3600, answered=False)
    assert not life.lives(U1)
    assert life.host.status(U2).init_pid == before


async def test_it_starts_again_with_the_next_session_if_it_is_still_to_run_here(life):
    await run_both(life)
    await life.pass_(F + 1, answered=False)
    life.connect()
    life.beat()
    await life.pass_(2, answered=True)
    assert not life.lives()  # nobody has said yet what shall run
    await life.set(fenced(U1), entry(U2))
    await life.until_running(U1)
    assert life.host.status().restarts == 0


async def test_it_stays_down_if_it_went_elsewhere(life):
    await run_both(life)
    await life.pass_(F + 1, answered=False)
    life.connect()
    life.beat()
    await life.set(fenced(U1, action=Action.KEEP), entry(U2))
    await life.pass_(5, answered=True)
    assert not life.lives()
    assert life.host.report().kept


async def test_heartbeats_that_are_answered_keep_it_up_for_ever(life):
    await run_both(life)
    before = life.host.status().init_pid
    await life.pass_(120, answered=True)
    assert life.host.status().init_pid == before


async def test_a_crash_is_answered_only_under_a_lease(life):
    await run_both(life)
    await life.pass_(30, answered=True)
    life.host.runtime.kill(U1)
    await life.host.until(lambda: life.lives(U1))
    await life.pass_(F + 1, answered=False)
    life.host.runtime.kill(U2)
    await life.host.until(lambda: life.lives(U2))
    await life.pass_(5, answered=False)
    assert (life.lives(U1), life.lives(U2)) == (False, True)


async def test_an_agent_that_stands_still_is_no_help_to_the_ve(life):
    await run_both(life)
    life.tasks.pop("fence").cancel()
    for task in life.host.manager._tasks.values():
        task.cancel()
    await life.pass_(F + 0.5, answered=False)
    assert (life.lives(U1), life.lives(U2)) == (False, True)


async def test_without_vefence_the_agent_ends_it_and_starts_none(life):
    await run_both(life)
    life.host.vefence.up = False
    await life.pass_(3, answered=True)
    assert life.lives(U1)
    await life.set(fenced(U1), fenced(U2, generation=2))
    life.host.runtime.kill(U1)
    await life.pass_(1, answered=True)
    assert (life.lives(U1), life.host.status().reason) == (False, "NoFence")
    assert life.host.status(U2).armed_generation == 0
    life.host.vefence.restart()
    await life.until_running(U1)


async def test_without_vefence_the_agent_ends_what_runs_when_the_lease_runs_out(life):
    await run_both(life)
    life.host.vefence.up = False
    await life.pass_(F + 1, answered=False)
    assert (life.lives(U1), life.lives(U2)) == (False, True)


async def test_an_agent_that_is_killed_and_back_in_time_ends_nothing(life):
    await run_both(life)
    before = life.host.status().init_pid
    await life.pass_(3, answered=True)
    await life.crash()
    await life.pass_(2, answered=False)
    await life.boot()
    life.beat()
    await life.pass_(5, answered=True)
    await life.set(fenced(U1), entry(U2))
    await life.pass_(20, answered=True)
    assert life.host.status().init_pid == before


async def test_one_that_is_back_too_late_waits_for_the_set_and_not_for_its_ledger(life):
    await run_both(life)
    await life.crash()
    await life.pass_(F + 1, answered=False)
    assert not life.lives(U1)
    await life.boot()
    await life.pass_(GRACE_S + 20, answered=False)
    assert (life.lives(U1), life.lives(U2)) == (False, True)
    life.connect()
    life.beat()
    await life.set(fenced(U1), entry(U2))
    await life.until_running(U1)


async def test_agent_and_vefence_that_begin_without_any_notes_end_what_the_ledger_calls_fenced(
    life,
):
    await run_both(life)
    await life.crash()
    life.host.vefence.power_loss()
    await life.boot()
    await life.pass_(1, answered=False)
    assert (life.lives(U1), life.lives(U2)) == (False, True)


async def test_after_a_reboot_only_the_ve_that_stays_comes_back_from_the_ledger(life):
    await run_both(life)
    await life.crash()
    life.host.boot_id = "boot-2"
    for uid in (U1, U2):
        life.host.runtime.kill(uid)
    life.host.vefence.power_loss()
    await life.boot()
    await life.pass_(GRACE_S + 5, answered=False)
    assert (life.lives(U1), life.lives(U2)) == (False, True)


async def test_a_kill_that_fails_is_tried_again_while_vefence_does_the_same(life):
    await run_both(life)
    life.host.vefence.up = False
    life.host.runtime.fail("kill", times=3)
    await life.pass_(F + 3, answered=False)
    assert not life.lives(U1)
    assert reasons(life.host).count("Fenced") == 1


async def test_a_long_stop_is_cut_short_by_the_deadline(life):
    await run_both(life)
    life.host.vefence.up = False
    life.host.runtime.slow("stop", 3600.0)
    await life.set(fenced(U1, action=Action.STOP, stop_timeout_s=3600.0), entry(U2))
    await life.pass_(F + 1, answered=False)
    assert not life.lives(U1)
