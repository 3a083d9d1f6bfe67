"""Makes a failing story short: leaves out what it fails without, as long as the same check fails."""

from collections.abc import Sequence
from dataclasses import replace

from sim.story import Event, Story
from sim.world import Outcome, play

TRIES = 150


class _Shrinking:
    def __init__(self, found: Outcome) -> None:
        assert found.violation is not None
        self.best = found
        self.tries = 0
        self._invariant = found.violation.invariant

    def try_(self, story: Story) -> bool:
        """Whether it still fails in the same way; then it is the best so far."""
        if self.tries >= TRIES or story == self.best.story:
            return False
        self.tries += 1
        found = play(story)
        fails = found.violation is not None and found.violation.invariant == self._invariant
        if fails:
            self.best = found
        return fails


def shrink(story: Story) -> Outcome | None:
    """The shortest that was found within 150 tries; None when the story does not fail."""
    found = play(story)
    if found.violation is None:
        return None
    shrinking = _Shrinking(found)
    _cut_end(shrinking)
    size = max(1, len(shrinking.best.story.events) // 2)
    while True:
        if not _without_parts(shrinking, size):
            if size == 1:
                break
            size = max(1, size // 2)
    _calm(shrinking)
    return shrinking.best


def _cut_end(shrinking: _Shrinking) -> None:
    """What was to happen after it failed matters to nobody."""
    best = shrinking.best
    assert best.violation is not None
    at = best.violation.at
    shrinking.try_(best.story.with_events([e for e in best.story.events if e.at <= at]))


def _without_parts(shrinking: _Shrinking, size: int) -> bool:
    """Leaves out so many at a time; whether that ever worked."""
    shorter, start = False, 0
    while start < len(shrinking.best.story.events):
        events = shrinking.best.story.events
        if shrinking.try_(shrinking.best.story.with_events(_without(events, start, size))):
            shorter = True
        else:
            start += size
    return shorter and size > 1


def _without(events: Sequence[Event], start: int, size: int) -> list[Event]:
    return [*events[:start], *events[start + size :]]


def _calm(shrinking: _Shrinking) -> None:
    """A quiet network, and no surprises in the order of things, if it fails with those too."""
    for change in (
        {"loss": 0.0},
        {"spike": 0.0},
        {"shuffle": False},
        {"controllers": 1},
        {"jitter_s": 0.0005, "base_s": 0.0001},
    ):
        story = shrinking.best.story
        shrinking.try_(replace(story, knobs=replace(story.knobs, **change)))
