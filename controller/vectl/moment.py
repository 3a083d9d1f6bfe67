"""Moments as people write them: so long ago, or a time of a day."""

import re
from datetime import datetime

from veapi.errors import InvalidInput
from veapi.units import parse_duration

_AGO = re.compile(r"[0-9.]+[smhd]?|([0-9]+[smhd])+", re.ASCII)
_HINT = "write e.g. 10m, 2h30m, 2026-05-01 or 2026-05-01T14:30:00Z (local time without a zone)"


def parse_since(text: str, *, now: float, field: str = "since") -> float:
    """Unix seconds of `10m` (before `now`), or of an ISO 8601 date or time. InvalidInput also for times to come."""
    found = (
        now - parse_duration(text, field=field) if _AGO.fullmatch(text) else _moment(text, field)
    )
    if found > now:
        raise InvalidInput(f"{field}: {text[:80]!r} is yet to come", hint=_HINT)
    return max(found, 1.0)


def _moment(text: str, field: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()  # local time when it names no zone
    except (ValueError, OverflowError, OSError):
        raise InvalidInput(f"{field}: {text[:80]!r} is no time", hint=_HINT) from None
