"""Which controller an agent dials next."""

from veagent.targets import DEAD_FOR_S, Targets


def test_who_does_not_answer_is_followed_by_the_next_in_turn() -> None:
    targets = Targets(["a", "b"])
    for expected in ("a", "b", "a"):
        assert targets.next() == expected
        targets.failed(expected, now=100.0)


def test_a_named_leader_is_dialled_next_though_nobody_configured_it() -> None:
    targets = Targets(["a", "b"])
    targets.refused(targets.next(), leader="z", now=0.0)
    assert targets.next() == "z"
    targets.failed("z", now=0.0)
    assert targets.next() == "b"


def test_nobody_is_sent_back_to_a_leader_that_was_just_found_dead() -> None:
    targets = Targets(["a", "b", "c"])
    targets.failed(targets.next(), now=10.0)
    targets.refused(targets.next(), leader="a", now=10.2)
    assert targets.next() == "c"
    targets.refused("c", leader="a", now=10.0 + DEAD_FOR_S)
    assert targets.next() == "a"


def test_who_names_itself_or_nobody_is_followed_by_the_next() -> None:
    targets = Targets(["a", "b"])
    targets.refused(targets.next(), leader="a", now=0.0)
    assert targets.next() == "b"
    targets.refused("b", leader="", now=0.0)
    assert targets.next() == "a"


def test_a_lost_answer_is_asked_for_again() -> None:
    targets = Targets(["a", "b"])
    targets.again(targets.next())
    assert [targets.next(), targets.next()] == ["a", "a"]
