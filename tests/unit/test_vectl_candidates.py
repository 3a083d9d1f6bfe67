"""In which order vectl asks controllers."""

from vectl.reach import DEAD_FOR_S, Candidates


def asked(order: Candidates, now: float = 0.0) -> str:
    return order.next(now=now)


def test_all_are_asked_in_turn_beginning_with_who_led() -> None:
    order = Candidates(["a", "b", "c"], first="b")
    assert [asked(order) for _ in range(4)] == ["b", "a", "c", "b"]


def test_a_named_leader_comes_next() -> None:
    order = Candidates(["a", "b"])
    assert asked(order) == "a"
    order.named("z", by="a", now=0.0)
    assert not order.all_asked
    assert [asked(order), asked(order)] == ["z", "b"]
    assert order.all_asked


def test_nobody_is_believed_about_a_leader_that_was_just_found_dead() -> None:
    order = Candidates(["a", "b"])
    order.failed(asked(order), now=0.0)
    order.named("a", by=asked(order), now=1.0)
    assert order.all_asked
    order.named("a", by="b", now=DEAD_FOR_S)
    assert asked(order, DEAD_FOR_S) == "a"


def test_the_dead_are_passed_by_while_others_live() -> None:
    order = Candidates(["a", "b", "c"])
    order.failed(asked(order), now=0.0)
    assert [asked(order, 1.0) for _ in range(4)] == ["b", "c", "b", "c"]
    assert order.all_asked
    assert {asked(order, DEAD_FOR_S) for _ in range(3)} == {"a", "b", "c"}


def test_when_all_are_dead_all_are_asked_again() -> None:
    order = Candidates(["a", "b"])
    for _ in range(2):
        order.failed(asked(order), now=0.0)
    assert order.all_asked
    assert {asked(order, 1.0), asked(order, 1.0)} == {"a", "b"}
    assert order.all_asked


def test_who_names_itself_is_not_asked_again_at_once() -> None:
    order = Candidates(["a", "b"])
    order.named("a", by=asked(order), now=0.0)
    assert asked(order) == "b"
