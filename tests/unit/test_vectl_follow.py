"""When a wait ends, and how."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from veapi.errors import (
    Conflict,
    NoHostFits,
    NotFound,
    RemoteFailed,
    TimedOut,
    VerackError,
)
from veapi.v1.types_pb2 import VE
from vectl.changes import Change, ChangeKind
from vectl.follow import Goal, Outcome, Target, follow, judge


def ve(state: str, *, observed: int = 1, started_s: int = 5, reason: str = "", **fields: str) -> VE:
    found = VE(name="web", uid="u1", generation=1)
    found.status.state = state
    found.status.reason = reason
    found.status.observed_generation = observed
    found.status.started_at.seconds = started_s
    for key, value in fields.items():
        setattr(found.status, key, value)
    return found


def target(goal: Goal, before: VE | None = None, generation: int = 1) -> Target:
    return Target(VE(name="web", uid="u1", generation=generation), goal, before)


RUNNING, STOPPED = ve("Running"), ve("Stopped")
REFUSED = ve("Pending", observed=0, reason="NoHostFits", message="memory: 3 of 3 hosts")
FAILED = ve("Failed", reason="ExitedAtOnce", message="init ended", host="h1")


@pytest.mark.parametrize(
    ("goal", "before", "now", "verdict"),
    [
        (Goal.RUNNING, None, RUNNING, True),
        (Goal.RUNNING, None, ve("Running", observed=0), False),
        (Goal.RUNNING, None, ve("Creating", observed=0), False),
        (Goal.RUNNING, None, ve("Pending", reason="Scheduling"), False),
        (Goal.RUNNING, None, ve("Unknown", reason="HostSilent"), False),
        (Goal.RUNNING, None, REFUSED, NoHostFits),
        (Goal.RUNNING, None, FAILED, RemoteFailed),
        (Goal.RUNNING, FAILED, FAILED, False),
        (Goal.RUNNING, FAILED, ve("Failed", reason="ImageMissing"), RemoteFailed),
        (Goal.STOPPED, RUNNING, STOPPED, True),
        (Goal.STOPPED, None, REFUSED, NoHostFits),
        (Goal.STOPPED, REFUSED, REFUSED, True),
        (Goal.RESTARTED, RUNNING, RUNNING, False),
        (Goal.RESTARTED, RUNNING, ve("Running", started_s=6), True),
        (Goal.GONE, RUNNING, ve("Deleting"), False),
        (Goal.GONE, RUNNING, FAILED, False),
    ],
)
def test_a_look_at_a_ve_is_judged(
    goal: Goal,
    before: VE | None,
    now: VE,
    verdict: bool | type[VerackError],  # noqa: FBT001  # as the table says
) -> None:
    found = judge(target(goal, before), now)
    if isinstance(verdict, bool):
        assert found is verdict
    else:
        assert isinstance(found, verdict)
        assert found.hint


def test_an_old_failure_that_a_watch_tells_without_events_is_still_old() -> None:
    answer = VE()
    answer.CopyFrom(FAILED)
    answer.status.events.add(reason="Exited")
    assert judge(target(Goal.RUNNING, FAILED), answer) is False


def test_a_refusal_keeps_the_reasons_and_says_how_to_give_up() -> None:
    found = judge(target(Goal.RUNNING), REFUSED)
    assert isinstance(found, NoHostFits)
    assert "memory: 3 of 3 hosts" in found.message
    assert "vectl delete web" in found.hint


class Shown:
    def __init__(self) -> None:
        self.states: list[str] = []
        self.closed = False

    def show(self, ve: VE, *, settled: int, total: int) -> None:
        self.states.append(f"{ve.name} {ve.status.state} {settled}/{total}")

    def close(self) -> None:
        self.closed = True


class Watched:
    """A watch that tells what a test puts in."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Change | VerackError] = asyncio.Queue()
        self.taken = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    def tell(self, found: VE, kind: ChangeKind = ChangeKind.CHANGED) -> None:
        self.queue.put_nowait(Change(kind, found))

    async def changes(self) -> AsyncIterator[Change]:
        await self.open.wait()
        while True:
            if self.queue.empty():
                self.taken.set()
            told = await self.queue.get()
            if isinstance(told, VerackError):
                raise told
            yield told


async def answer(found: Target | VerackError) -> Target | VerackError:
    return found


async def test_a_wait_ends_with_the_state_and_shows_the_way_there() -> None:
    watched, shown = Watched(), Shown()
    for state in ("Pending", "Creating"):
        watched.tell(ve(state, observed=0))
    watched.tell(RUNNING)
    watched.open.clear()

    async def create() -> Target:
        watched.open.set()
        return target(Goal.RUNNING)

    [found] = await follow(watched.changes(), [create()], shown, timeout_s=5)
    assert isinstance(found, Outcome)
    assert found.error is None
    assert found.ve == RUNNING
    assert shown.states[1:] == ["web Pending 0/1", "web Creating 0/1", "web Running 1/1"]
    assert shown.closed


async def test_a_change_that_comes_before_the_answer_counts() -> None:
    watched = Watched()
    watched.tell(RUNNING)

    async def late() -> Target:
        await watched.taken.wait()
        return target(Goal.RUNNING)

    [found] = await follow(watched.changes(), [late()], Shown(), timeout_s=5)
    assert isinstance(found, Outcome)
    assert found.error is None


async def test_a_ve_that_is_so_already_needs_no_news() -> None:
    wanted = Target(RUNNING, Goal.RUNNING, RUNNING)
    [found] = await follow(Watched().changes(), [answer(wanted)], Shown(), timeout_s=5)
    assert isinstance(found, Outcome)
    assert found.error is None


async def test_other_ves_of_the_name_do_not_count() -> None:
    watched = Watched()
    other = VE()
    other.CopyFrom(RUNNING)
    other.uid = "u2"
    watched.tell(other)
    [found] = await follow(
        watched.changes(), [answer(target(Goal.RUNNING))], Shown(), timeout_s=0.01
    )
    assert isinstance(found, Outcome)
    assert isinstance(found.error, TimedOut)


async def test_a_late_one_says_what_it_is_now() -> None:
    watched = Watched()
    watched.tell(ve("Creating", observed=0, reason="Fetching", message="the image"))
    [found] = await follow(
        watched.changes(), [answer(target(Goal.RUNNING))], Shown(), timeout_s=0.01
    )
    assert isinstance(found, Outcome)
    assert found.error is not None
    assert "Creating (Fetching the image)" in found.error.message
    assert "--timeout" in found.error.hint


async def test_gone_is_done_for_a_delete_and_a_conflict_for_a_start() -> None:
    for goal, error in ((Goal.GONE, None), (Goal.RUNNING, Conflict)):
        watched = Watched()
        watched.tell(RUNNING, ChangeKind.DELETED)
        [found] = await follow(watched.changes(), [answer(target(goal))], Shown(), timeout_s=5)
        assert isinstance(found, Outcome)
        assert found.error is None if error is None else isinstance(found.error, error)


async def test_a_request_that_fails_keeps_its_place_among_the_others() -> None:
    watched = Watched()
    watched.tell(RUNNING)
    refused = NotFound("no", hint="look")
    found = await follow(
        watched.changes(),
        [answer(refused), answer(target(Goal.RUNNING))],
        Shown(),
        timeout_s=5,
    )
    assert found[0] is refused
    assert isinstance(found[1], Outcome)


async def test_a_watch_that_fails_ends_the_wait() -> None:
    watched, shown = Watched(), Shown()
    watched.queue.put_nowait(NotFound("project", hint="x"))
    with pytest.raises(NotFound):
        await follow(watched.changes(), [answer(target(Goal.RUNNING))], shown, timeout_s=5)
    assert shown.closed


def refused_by_host(reason: str, message: str, *, observed: int = 2) -> VE:
    found = ve("Running", observed=observed)
    found.generation = 2
    found.status.reason, found.status.message = reason, message
    return found


@pytest.mark.parametrize(
    ("reason", "message", "hint"),
    [
        ("LimitsRefused", "memory in use does not fit", "--restart"),
        ("RestartNeeded", "restart it to change: ip", "--restart"),
        ("LimitsRefused", "disk: it holds 100M", "vectl show web"),
        ("SourceMissing", "no such snapshot", "vectl show web"),
    ],
)
def test_what_a_host_could_not_do_ends_the_wait(reason: str, message: str, hint: str) -> None:
    asked = ve("Running", observed=1)
    asked.generation = 2
    for goal in (Goal.SETTLED, Goal.RUNNING):
        found = judge(Target(asked, goal, asked), refused_by_host(reason, message))
        assert isinstance(found, Conflict)
        assert message in found.message
        assert hint in found.hint


def test_what_a_host_refused_before_is_no_answer_to_what_is_asked_now() -> None:
    asked = ve("Running", observed=1)
    asked.generation = 3
    old = refused_by_host("LimitsRefused", "memory in use does not fit")
    assert judge(Target(asked, Goal.SETTLED, asked), old) is False


def test_a_restart_is_waited_for_though_the_host_said_that_it_needs_one() -> None:
    before = refused_by_host("RestartNeeded", "restart it to change: ip")
    assert judge(Target(before, Goal.RESTARTED, before), before) is False
    after = refused_by_host("", "")
    after.status.started_at.seconds = before.status.started_at.seconds + 1
    assert judge(Target(before, Goal.RESTARTED, before), after) is True


@pytest.mark.parametrize(
    ("run", "state", "reason", "verdict"),
    [
        ("running", "Running", "", True),
        ("running", "Stopped", "PoweredOff", True),
        ("running", "Stopped", "", False),
        ("frozen", "Frozen", "", True),
        ("frozen", "Running", "", False),
        ("stopped", "Stopped", "", True),
        ("stopped", "Running", "", False),
    ],
)
def test_what_was_asked_is_settled_when_the_host_says_so(
    run: str,
    state: str,
    reason: str,
    verdict: bool,  # noqa: FBT001
) -> None:
    found = ve(state, observed=1)
    found.generation, found.spec.run, found.status.reason = 1, run, reason
    assert judge(Target(found, Goal.SETTLED, found), found) is verdict
    found.status.observed_generation = 0
    assert judge(Target(found, Goal.SETTLED, found), found) is False
