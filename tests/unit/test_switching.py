"""The switches in the cluster's record, and what they take to be read."""

import pytest

from veapi.errors import InvalidInput
from veapi.model import Cluster, HostName, HostState, Timing
from vecontroller import switching, timing
from vecontroller.store import values
from vecontroller.store.values import Unreadable

RECORD = Cluster(name="rack", arming=4)
H1, H2 = HostName("h1"), HostName("h2")


def silent(_host: HostName) -> HostState:
    return HostState.SILENT


def test_each_disarming_and_arming_is_to_be_confirmed_anew() -> None:
    off = switching.disarmed(RECORD, 100.0)
    assert (off.arming, off.disarmed_until) == (5, 100.0)
    assert switching.armed(off) == Cluster(name="rack", arming=6)
    assert switching.armed(RECORD) == RECORD


def test_a_disarming_ends_by_itself_and_not_before() -> None:
    off = switching.disarmed(RECORD, 100.0)
    assert switching.due(off, 99.9, silent) == off
    assert switching.due(off, 100.0, silent) == switching.armed(off)


def test_hosts_that_were_given_up_are_no_storm_until_they_are_heard() -> None:
    stopped = Cluster(name="rack", moves_stopped="2 of 3 silent")
    going = switching.resumed(stopped, (H1, H2))
    assert (going.moves_stopped, going.moves_resumed) == ("", (H1, H2))
    assert switching.due(going, 0.0, silent) == going
    heard = switching.due(going, 0.0, lambda h: HostState.READY if h == H1 else HostState.SILENT)
    assert heard.moves_resumed == (H2,)


def test_what_was_not_stopped_is_not_resumed() -> None:
    assert switching.resumed(RECORD, (H1,)) == RECORD


@pytest.mark.parametrize(
    "times",
    [
        Timing(move_after_s=10.0),
        Timing(fence_after_s=10.0),
        Timing(kill_within_s=0.0),
        Timing(heartbeat_s=5.0),
        Timing(move_after_s=float("inf")),
    ],
)
def test_times_that_let_a_ve_run_twice_are_refused_when_made_and_when_read(times: Timing) -> None:
    with pytest.raises(InvalidInput, match="timing"):
        timing.check(times)
    with pytest.raises(Unreadable, match="timing"):
        values.decode_cluster(values.encode_cluster(Cluster(name="rack", timing=times)))


def test_all_of_the_record_comes_back_from_the_store() -> None:
    record = Cluster(
        name="rack",
        arming=3,
        disarmed_until=7.5,
        moves_stopped="storm",
        moves_resumed=(H1,),
        op_id="o",
    )
    assert values.decode_cluster(values.encode_cluster(record)) == record
