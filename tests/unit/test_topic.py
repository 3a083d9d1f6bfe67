"""Waiting for changes, at most for a while."""

from veapi.clock import SystemClock
from vecontroller.topic import Topic
from vecontroller.view import Changed

CLOCK = SystemClock()


async def test_what_changed_since_the_last_look_comes_at_once_and_as_one() -> None:
    topic = Topic()
    with topic.subscribe() as changes:
        topic.publish(Changed(revision=1, projects=True))
        topic.publish(Changed(revision=2, images=True))
        found = await changes.next_within(CLOCK, 60)
    assert found == Changed(revision=2, projects=True, images=True)


async def test_a_wait_that_was_over_takes_no_later_change_away() -> None:
    topic = Topic()
    with topic.subscribe() as changes:
        assert await changes.next_within(CLOCK, 0) is None
        topic.publish(Changed(revision=1))
        assert await changes.next_within(CLOCK, 60) == Changed(revision=1)
