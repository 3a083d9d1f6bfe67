import pytest

from kit.world import make_placement, make_ve
from veapi.model import Event, EventType, HostState, Uid, VEState, VEStatus
from vecontroller.lifecycle import Truth, conditions, displayed, events
from vecontroller.placement import Refusal

REFUSAL = Refusal(
    uid=Uid("u1"), reason="NoHostFits", message="1 host: 1 silent", hint="wait", at=102.0
)
RUNNING = VEStatus(
    state=VEState.RUNNING, host="h1", addresses=("10.66.0.9",), placement_generation=1
)


def deleting():
    return make_ve(delete_requested_at=150.0)


def show(ve=None, placement=None, status=None, *, refusal=None, host_state=HostState.READY):
    return displayed(ve or make_ve(), placement, status, refusal=refusal, host_state=host_state)


def test_an_unplaced_ve_is_pending_and_being_scheduled():
    shown = show()
    assert (shown.state, shown.reason) == (VEState.PENDING, "Scheduling")


def test_a_refused_ve_is_pending_with_the_reason():
    shown = show(refusal=REFUSAL)
    assert (shown.state, shown.reason, shown.message) == (
        VEState.PENDING,
        "NoHostFits",
        "1 host: 1 silent",
    )


def test_a_placed_ve_of_which_nothing_was_seen_is_creating_on_its_host():
    shown = show(placement=make_placement("h2"))
    assert (shown.state, shown.host, shown.addresses) == (VEState.CREATING, "h2", ("10.66.0.9",))


def test_what_was_seen_of_an_earlier_placement_does_not_count():
    shown = show(placement=make_placement(generation=2), status=RUNNING)
    assert shown.state is VEState.CREATING


def test_what_the_host_saw_is_shown():
    assert show(placement=make_placement(), status=RUNNING) == RUNNING


@pytest.mark.parametrize("host_state", [HostState.SILENT, HostState.UNKNOWN])
def test_a_ve_whose_host_does_not_answer_is_unknown_and_says_what_it_was(host_state):
    shown = show(placement=make_placement(), status=RUNNING, host_state=host_state)
    assert shown.state is VEState.UNKNOWN
    assert "h1" in shown.message
    assert "last seen Running" in shown.message


def test_a_ve_that_is_removed_is_deleting_whatever_was_seen():
    ve = deleting()
    assert show(ve).state is VEState.DELETING
    assert show(ve, make_placement(), RUNNING).state is VEState.DELETING


def test_a_ve_that_is_removed_on_a_silent_host_says_what_it_waits_for():
    shown = show(deleting(), make_placement(), RUNNING, host_state=HostState.SILENT)
    assert shown.state is VEState.DELETING
    assert "when the host is back" in shown.message


def test_conditions_answer_placed_host_ready_and_running():
    found = conditions(
        make_ve(), make_placement(), RUNNING, refusal=None, host_state=HostState.READY
    )
    assert [(each.type, each.status) for each in found] == [
        ("Placed", Truth.TRUE),
        ("HostReady", Truth.TRUE),
        ("Running", Truth.TRUE),
    ]


def test_conditions_of_a_refused_ve_say_why_it_is_not_placed():
    placed, running = conditions(
        make_ve(), None, None, refusal=REFUSAL, host_state=HostState.UNKNOWN
    )
    assert (placed.status, placed.reason) == (Truth.FALSE, "NoHostFits")
    assert running.status is Truth.FALSE


def test_running_is_unknown_on_a_silent_host():
    found = conditions(
        make_ve(), make_placement(), RUNNING, refusal=None, host_state=HostState.SILENT
    )
    assert found[-1].status is Truth.UNKNOWN


def test_events_tell_the_story_in_order():
    status = VEStatus(
        state=VEState.RUNNING,
        events=(Event(at=103.0, type=EventType.NORMAL, reason="Started", message=""),),
    )
    found = events(deleting(), make_placement(), status, None)
    assert [event.reason for event in found] == ["Created", "Placed", "Started", "DeleteRequested"]


def test_a_refusal_is_a_warning_with_its_hint():
    found = events(make_ve(), None, None, REFUSAL)[-1]
    assert (found.type, found.reason) == (EventType.WARNING, "Refused")
    assert "wait" in found.message


def test_only_the_last_twenty_events_are_kept():
    many = tuple(
        Event(at=200.0 + index, type=EventType.NORMAL, reason=f"E{index}", message="")
        for index in range(20)
    )
    found = events(make_ve(), make_placement(), VEStatus(state=VEState.RUNNING, events=many), None)
    assert [event.reason for event in found] == [f"E{index}" for index in range(20)]
