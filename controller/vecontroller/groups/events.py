"""What steps of a group come to, for people: one event for each kind of step. Pure."""

from collections.abc import Iterable

from veapi.model import Event, EventType, Group
from vecontroller.groups.member import name_of
from vecontroller.groups.steps import Change, Make, Release, Remove, Step

_NAMED = 5
_WORDS = ((Make, "Making"), (Change, "Changing"), (Remove, "Removing"), (Release, "Releasing"))


def done_events(group: Group, steps: Iterable[Step], at: float) -> list[Event]:
    """`at`: Unix seconds."""
    found = []
    for kind, word in _WORDS:
        ordinals = [each.ordinal for each in steps if isinstance(each, kind)]
        if ordinals:
            named = ", ".join(name_of(group.name, ordinal) for ordinal in ordinals[:_NAMED])
            more = f" and {len(ordinals) - _NAMED} more" if len(ordinals) > _NAMED else ""
            to = f" as revision {group.current.number}" if kind is Change else ""
            found.append(
                Event(at=at, type=EventType.NORMAL, reason=word, message=f"{named}{more}{to}")
            )
    return found
