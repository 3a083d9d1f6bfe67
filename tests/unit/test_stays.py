from kit.world import make_placement
from veapi.model import HostName, Stay
from vecontroller.stays import STAYS_KEPT, moved
from vecontroller.store import values


def test_a_move_keeps_where_it_was_and_why_it_left():
    before = make_placement(
        "h1", decided_at=5.0, message="most room", waited_since=1.0, waited_for="x"
    )
    after = moved(before, host=HostName("h2"), at=9.0, message="h1 was lost", left="lost")
    assert (after.host, after.generation, after.decided_at) == ("h2", 2, 9.0)
    assert (after.message, after.waited_for, after.waited_since) == ("h1 was lost", "", 0.0)
    assert after.past == (
        Stay(
            host=HostName("h1"),
            generation=1,
            began_at=5.0,
            ended_at=9.0,
            message="most room",
            ended="lost",
        ),
    )
    assert values.decode_placement(values.encode_placement(after)) == after


def test_only_the_last_stays_are_kept():
    placement = make_placement("h0")
    for number in range(1, STAYS_KEPT + 5):
        host = HostName(f"h{number}")
        placement = moved(placement, host=host, at=float(number), message="", left="")
    assert len(placement.past) == STAYS_KEPT
    assert placement.past[-1].host == f"h{STAYS_KEPT + 3}"
