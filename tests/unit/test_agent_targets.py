"""Which controller an agent dials next."""

from veagent.targets import DEAD_FOR_S, Targets


def asked(targets: Targets, now: float = 0.0) -> str:
    return targets.next(now=now)


def test_who_does_not_answer_is_followed_by_the_next_in_turn() -> None:
    targets = Targets(["a", "b"])
    for expected in ("a", "b", "a"):
        assert asked(targets, 100.0) == expected
        targets.failed(expected, now=100.0)


def test_who_was_just_found_dead_is_passed_by_in_its_turn() -> None:
    targets = Targets(["a", "b", "c"])
    targets.failed(asked(targets), now=10.0)
    found = []
    for _ in range(3):
        found.append(asked(targets, 10.5))
        targets.refused(found[-1], leader="", now=10.5)
    assert found == ["b", "c", "b"]
    assert asked(targets, 10.5) == "c"
    targets.refused("c", leader="", now=10.5)
    assert asked(targets, 10.0 + DEAD_FOR_S) == "a"


def test_a_named_leader_is_dialled_next_though_nobody_configured_it() -> None:
    targets = Targets(["a", "b"])
    targets.refused(asked(targets), leader="z", now=0.0)
    assert targets.leader_named
    assert asked(targets) == "z"
    assert not targets.leader_named
    targets.failed("z", now=0.0)
    assert asked(targets) == "b"


def test_nobody_is_sent_back_to_a_leader_that_was_just_found_dead() -> None:
    targets = Targets(["a", "b", "c"])
    targets.failed(asked(targets, 10.0), now=10.0)
    targets.refused(asked(targets, 10.2), leader="a", now=10.2)
    assert not targets.leader_named
    assert asked(targets, 10.2) == "c"
    targets.refused("c", leader="a", now=10.0 + DEAD_FOR_S)
    assert asked(targets, 10.0 + DEAD_FOR_S) == "a"


def test_who_names_itself_or_nobody_is_followed_by_the_next() -> None:
    targets = Targets(["a", "b"])
    targets.refused(asked(targets), leader="a", now=0.0)
    assert asked(targets) == "b"
    targets.refused("b", leader="", now=0.0)
    assert asked(targets) == "a"


def test_a_lost_answer_is_asked_for_again() -> None:
    targets = Targets(["a", "b"])
    targets.again(asked(targets))
    assert [asked(targets), asked(targets)] == ["a", "a"]
