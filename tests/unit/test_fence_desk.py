"""Who may run by lease and vefence, on a clock that stands still."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.fencing import TIMING, U1, U2, F, FenceRig, entry, fenced
from veagent.fence import hold as holds
from veagent.fence.gate import FREE
from veapi.errors import Unavailable
from veapi.model import Action
from vefence.notes import Target


@pytest.fixture
async def rig() -> FenceRig:
    return FenceRig()


def listed(rig: FenceRig) -> set[str]:
    kill_list = rig.vefence.notes[1]
    return {target.uid for target in kill_list.targets} if kill_list else set()


async def test_a_fenced_ve_may_start_once_all_is_confirmed_and_not_before(rig):
    assert rig.reason() == "AwaitsLease"
    rig.connect()
    rig.vefence.turn()
    rig.set(fenced())
    assert rig.reason() == "AwaitsLease"  # nothing was answered yet
    rig.beat()
    rig.desk.turn()
    assert rig.reason() == "Arming"
    assert listed(rig) == {U1}
    assert rig.desk.view(U1, fenced()).armed == 0
    rig.look()
    assert rig.reason() == ""
    assert rig.desk.view(U1, fenced()).armed == 1


async def test_answers_alone_start_nothing_before_a_set_has_come(rig):
    rig.connect()
    rig.beat()
    rig.look()
    assert rig.reason() == "AwaitsLease"


async def test_without_a_living_vefence_nothing_fenced_starts_and_what_runs_is_not_listed(rig):
    rig.vefence.up = False
    rig.running.add(U1)
    rig.ready()
    assert rig.reason() == "NoFence"
    assert listed(rig) == set()
    assert (rig.desk.facts().live, bool(rig.desk.facts().refuses)) == (False, True)
    rig.vefence.restart()
    rig.look()
    rig.look()
    assert rig.reason() == ""
    assert rig.desk.facts().live


async def test_one_that_dies_later_is_missed_within_two_seconds(rig):
    rig.ready()
    rig.vefence.up = False
    rig.changed.clear()
    for _ in range(10):
        rig.beat()
        rig.pass_(0.25)
    assert rig.reason() == "NoFence"
    assert rig.changed == [U1]
    with pytest.raises(Unavailable, match="vefence"), rig.desk.starting(fenced()):
        pass


async def test_a_stay_ve_is_free_of_all_this(rig):
    rig.ready(fenced(), entry(U2))
    assert rig.desk.view(U2, entry(U2)) == FREE
    rig.pass_(100)
    assert rig.desk.view(U2, entry(U2)) == FREE
    with rig.desk.starting(entry(U2)):
        pass


async def test_the_lease_counts_from_when_the_heartbeat_was_sent(rig):
    rig.ready()
    rig.running.add(U1)
    rig.beat(age_s=3.0)  # older than the one before
    lease = rig.vefence.notes[0]
    assert lease.deadline == pytest.approx(rig.clock.boot() - 0.1 + F)
    rig.pass_(F - 0.2)
    assert rig.running == {U1}
    rig.pass_(0.3)
    assert rig.running == set()


async def test_a_lost_lease_comes_back_only_with_a_set_of_a_newer_session(rig):
    rig.ready()
    rig.pass_(F + 1)
    rig.beat()
    rig.set(fenced())  # of the session from before
    rig.look()
    rig.look()
    assert rig.reason() == "AwaitsLease"
    rig.connect()
    rig.beat()
    rig.look()
    assert rig.reason() == "AwaitsLease"
    rig.set(fenced())
    rig.look()
    assert rig.reason() == ""


async def test_a_lost_lease_does_not_come_back_while_anything_of_it_lives_or_starts(rig):
    rig.ready()
    with rig.desk.starting(fenced()):
        rig.pass_(F + 1)
        rig.ready()
        assert rig.reason() == "AwaitsLease"
        rig.running.add(U1)  # the start comes about, late
        rig.vefence.up = False
        rig.pass_(0.25)
    rig.ready()
    assert rig.reason() == "AwaitsLease"
    rig.vefence.up = True
    rig.ready()
    assert rig.running == set()
    rig.look()
    assert rig.reason() == ""


async def test_an_answer_that_comes_too_late_moves_nothing_on(rig):
    rig.ready()
    rig.running.add(U1)
    rig.clock.jump(F + 0.01)  # the agent stood still
    rig.beat(age_s=0.005)
    assert rig.desk.lapses == rig.session + 1
    assert rig.desk.view(U1, fenced()).doomed
    rig.look()
    assert rig.running == set()


async def test_a_running_ve_whose_policy_becomes_fenced_is_listed_only_under_a_lease(rig):
    rig.running.add(U1)
    rig.ready(entry(U1))
    rig.pass_(F + 1)
    rig.connect()
    rig.set(fenced())
    rig.look()
    assert listed(rig) == set()
    rig.beat()
    for _ in range(3):
        rig.look()
    assert rig.running == {U1}
    assert rig.desk.view(U1, fenced()).armed == 1


async def test_another_policy_generation_is_armed_anew(rig):
    rig.ready()
    rig.set(fenced(policy=5))
    assert rig.desk.view(U1, fenced(policy=5)).armed == 0
    rig.look()
    assert rig.desk.view(U1, fenced(policy=5)).armed == 5


async def test_a_ve_that_is_to_stay_again_is_taken_off_the_list_at_once(rig):
    rig.ready()
    rig.running.add(U1)
    rig.set(entry(U1))
    assert listed(rig) == set()
    rig.pass_(F + 1)
    assert rig.running == {U1}


@pytest.mark.parametrize("action", [Action.KEEP, Action.PURGE, Action.RELEASE, None])
async def test_a_ve_that_goes_stays_on_the_list_until_it_is_down(rig, action):
    rig.ready()
    rig.running.add(U1)
    rig.set(*([fenced(action=action)] if action else []))
    assert listed(rig) == {U1}
    rig.running.clear()
    rig.look()
    assert listed(rig) == set()


# Another agent.


async def test_a_restored_store_puts_no_ve_on_the_list_and_takes_none_off(rig):
    rig.ready(fenced(U1), entry(U2))
    rig.running |= {U1, U2}
    rig.beat()
    rig.set(entry(U1), fenced(U2), unconfirmed=True)
    rig.look()
    assert listed(rig) == {U1}
    rig.pass_(F + 1)
    assert rig.running == {U2}


async def test_the_next_agent_goes_on_with_a_lease_that_holds(rig):
    rig.ready()
    rig.running.add(U1)
    rig.pass_(2)
    rig.begin()
    assert not rig.desk.view(U1, fenced()).doomed
    assert rig.reason() == "AwaitsLease"  # it heard of no set yet
    rig.beat()
    rig.pass_(F - 1)
    assert rig.running == {U1}
    rig.set(fenced())
    assert rig.reason() == ""


async def test_the_next_agent_takes_a_lease_that_ran_out_for_lost(rig):
    rig.ready()
    rig.running.add(U1)
    rig.vefence.up = False
    rig.clock.jump(F + 1)
    rig.begin()
    assert rig.desk.view(U1, fenced()).doomed
    rig.beat()
    assert rig.desk.view(U1, fenced()).doomed


async def test_what_runs_ends_if_the_next_agent_and_the_next_vefence_find_no_notes(rig):
    rig.ready(fenced(U1), entry(U2))
    rig.running |= {U1, U2}
    rig.vefence.power_loss()
    rig.begin()
    rig.desk.found([fenced(U1), entry(U2)])
    rig.look()
    assert rig.desk.view(U1, fenced()).doomed
    assert rig.running == {U2}
    rig.ready(fenced(U1), entry(U2))
    assert rig.reason() == ""


async def test_an_agent_that_finds_its_notes_lists_nothing_that_was_not_listed(rig):
    rig.ready(fenced(U1))
    rig.running |= {U1, U2}
    rig.begin()
    rig.desk.found([fenced(U1), fenced(U2)])
    rig.look()
    assert listed(rig) == {U1}
    assert rig.running == {U1, U2}


async def test_a_vefence_that_lost_its_notes_is_told_again(rig):
    rig.ready()
    lease, kill_list = rig.vefence.notes
    rig.vefence.notes = (None, None)
    rig.vefence.restart()
    rig.look()
    assert rig.reason() == "Arming"
    rig.pass_(2)
    assert rig.vefence.notes == (lease, kill_list)
    rig.beat()
    rig.look()
    assert rig.reason() == ""


async def test_notes_that_are_gone_are_written_again_though_vefence_remembers_them(rig):
    rig.ready()
    lease, kill_list = rig.vefence.notes
    rig.vefence.notes = (None, None)
    rig.look()
    assert rig.vefence.notes == (lease, kill_list)


async def test_what_can_not_be_told_to_vefence_holds_nothing(rig, monkeypatch):
    rig.ready()
    rig.running.add(U1)

    def full(_note):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rig.vefence, "tell_lease", full)
    for _ in range(10):
        rig.beat()
        rig.pass_(1)
    assert rig.running == set()
    assert rig.reason() == "AwaitsLease"


# Armed and disarmed.


async def test_while_disarmed_nothing_is_killed_or_armed_and_starts_need_no_lease(rig):
    rig.ready()
    rig.running.add(U1)
    rig.set(fenced(), fenced(U2), disarmed=True, arming=1)
    assert rig.desk.facts().arming == -1  # not confirmed yet
    rig.look()
    assert rig.desk.facts().arming == 1
    rig.pass_(100)
    assert rig.running == {U1}
    assert rig.desk.view(U1, fenced()).armed == 0
    assert rig.reason(U2) == ""
    rig.begin()
    assert rig.desk.disarmed
    assert rig.reason(U2) == "AwaitsLease"  # never from the ledger alone


async def test_armed_again_it_goes_by_a_lease_that_holds_and_says_so_once_confirmed(rig):
    rig.ready()
    rig.running.add(U1)
    rig.set(fenced(), disarmed=True, arming=1)
    rig.pass_(100)
    rig.set(fenced(), arming=2)
    rig.look()
    assert rig.desk.disarmed  # no heartbeat was answered of late
    rig.beat()
    rig.look()
    assert (rig.desk.facts().arming, rig.desk.view(U1, fenced()).armed) == (-1, 0)
    rig.look()
    assert (rig.desk.facts().arming, rig.desk.view(U1, fenced()).armed) == (2, 1)
    rig.pass_(F + 1)
    assert rig.running == set()


async def test_what_ran_out_before_is_dead_before_the_fence_goes_off(rig):
    rig.ready()
    rig.running.add(U1)
    rig.clock.jump(F + 1)
    rig.connect()
    rig.set(disarmed=True, arming=1)
    assert not rig.desk.disarmed
    rig.look()
    rig.look()
    assert rig.running == set()
    assert rig.desk.disarmed


async def test_its_card_is_named_to_vefence_and_the_facts_name_the_timing(rig):
    rig.ready()
    assert rig.vefence.notes[1].targets == (Target(U1, "v111111111111", 1),)
    assert rig.desk.facts().timing == TIMING
    assert rig.desk.numbers().listed == 1


# The lease itself.

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.floats(0, 20)),
        st.tuples(st.just("pass"), st.floats(0, 10)),
        st.tuples(st.just("set"), st.integers(-1, 4)),
        st.tuples(st.just("open"), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_never_open_beyond_the_newest_answer_and_never_again_without_a_newer_set(steps):
    now, hold, newest = 100.0, holds.Hold(), 0.0
    for what, number in steps:
        before = hold
        match what:
            case "answer":
                newest = max(newest, now - number + F)
                hold = holds.answered(hold, now - number + F, now)
            case "pass":
                now += number
                hold = holds.checked(hold, now)
            case "set":
                hold = holds.heard(hold, number)
            case _ if holds.may_open(hold, now):
                assert hold.heard == hold.lapses
                hold = holds.opened(hold)
        assert not hold.holds(now) or now < newest
        assert hold.lapses >= before.lapses
        if hold.open and not before.open:
            assert what == "open"


def test_a_deadline_that_was_found_holds_only_if_it_is_ahead():
    assert holds.found(10.0, 9.9).holds(9.95)
    assert not holds.found(10.0, 10.0).open
    assert not holds.found(None, 0.0).open
