"""What is told to people about a VE: the sentences of its events."""

import signal
from datetime import UTC, datetime

import msgspec

from veagent.ports import Ended
from veapi.errors import VerackError
from veapi.model import EVENTS_KEPT, Event, EventType


def add(events: tuple[Event, ...], event: Event) -> tuple[Event, ...]:
    """The last 20. What only repeats the last one moves its time, so that a retry can't push the story out."""
    if events and _same(events[-1], event):
        events = events[:-1]
    return (*events, event)[-EVENTS_KEPT:]


def add_folded(events: tuple[Event, ...], event: Event) -> tuple[Event, ...]:
    """As `add`; takes the place of the last one when that has the same reason: the newest counts for all."""
    if events and events[-1].reason == event.reason:
        events = events[:-1]
    return (*events, event)[-EVENTS_KEPT:]


def words(error: VerackError) -> str:
    """Message and hint, for a status: text that can be sent, whatever it quotes."""
    said = error.message + (f" ({error.hint})" if error.hint else "")
    return said.encode(errors="backslashreplace").decode()


def _same(first: Event, second: Event) -> bool:
    return msgspec.structs.replace(first, at=second.at) == second


def normal(at: float, host: str, reason: str, message: str) -> Event:
    return Event(at=at, type=EventType.NORMAL, reason=reason, message=message, host=host)


def warning(at: float, host: str, reason: str, message: str) -> Event:
    return Event(at=at, type=EventType.WARNING, reason=reason, message=message, host=host)


def end_sentence(ended: Ended) -> str:
    """How init ended, as far as the kernel told: `init was killed by signal 9`."""
    status = ended.wait_status
    if status is None:
        return "init ended unexpectedly"
    number = status & 0x7F
    if number:
        return f"init was killed by signal {number}{_signal_name(number)}"
    return f"init exited with {status >> 8 & 0xFF}"


def _signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})" if number != signal.SIGKILL else ""
    except ValueError:
        return ""


def clock_time(at: float) -> str:
    """A Unix time for a message: `12:30:05 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
