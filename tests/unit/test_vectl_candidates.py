"""In which order vectl asks controllers."""

from vectl.reach import Candidates


def test_all_are_asked_in_turn_beginning_with_who_led() -> None:
    order = Candidates(["a", "b", "c"], first="b")
    assert [order.next() for _ in range(4)] == ["b", "a", "c", "b"]


def test_a_named_leader_comes_next() -> None:
    order = Candidates(["a", "b"])
    assert order.next() == "a"
    order.named("z", by="a")
    assert not order.all_asked
    assert [order.next(), order.next()] == ["z", "b"]
    assert order.all_asked


def test_nobody_is_believed_about_a_leader_that_was_found_dead() -> None:
    order = Candidates(["a", "b"])
    order.failed(order.next())
    order.named("a", by=order.next())
    assert order.all_asked


def test_who_names_itself_is_not_asked_again_at_once() -> None:
    order = Candidates(["a", "b"])
    order.named("a", by=order.next())
    assert order.next() == "b"
