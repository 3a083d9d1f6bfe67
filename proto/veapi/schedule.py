"""Schedules of snapshots as people write them, e.g. "every 6h keep 4, daily keep 7": pure.

Rules are joined by commas. Each says how often (hourly, daily, weekly, or every N m, h or d) and how many of its snapshots
are kept; older ones of the same rule go. A rule's name (`every 6h`) marks its snapshots, so a rule that is written again
finds those that it made before.
"""

import re
from dataclasses import dataclass

from veapi.errors import InvalidInput

RULES_LIMIT = 8
KEEP_LIMIT = 64
KEPT_LIMIT = 96
"""Of all rules together: their wishes are part of the VE's record, which is small."""
SHORTEST_S = 60
LONGEST_S = 366 * 86_400
_TEXT_LIMIT = 400
_UNITS_S = {"m": 60, "h": 3_600, "d": 86_400}
_NAMED_S = {"hourly": 3_600, "daily": 86_400, "weekly": 7 * 86_400}
_RULE = re.compile(
    r"(?:(hourly|daily|weekly)|every ([0-9]{1,6}) ?([mhd])) keep ([0-9]{1,6})", re.ASCII
)
_HINT = 'write e.g. "every 6h keep 4, daily keep 7": hourly, daily, weekly or every N m, h or d'


@dataclass(frozen=True, slots=True)
class Rule:
    """One part of a schedule. `name` is how it is written without its keep, e.g. `daily`."""

    name: str
    every_s: int
    keep: int

    def __str__(self) -> str:
        return f"{self.name} keep {self.keep}"


def parse(text: str, *, field: str = "snapshots") -> tuple[Rule, ...]:
    """The rules in their order; none for an empty text. InvalidInput names what is wrong with which rule."""
    if len(text) > _TEXT_LIMIT:
        raise InvalidInput(
            f"{field}: has {len(text)} characters; at most {_TEXT_LIMIT}", hint=_HINT
        )
    if not text.strip():
        return ()
    parts = text.lower().split(",")
    if len(parts) > RULES_LIMIT:
        raise InvalidInput(f"{field}: {len(parts)} rules; at most {RULES_LIMIT}", hint=_HINT)
    rules = tuple(_rule(" ".join(part.split()), field) for part in parts)
    _check_together(rules, field)
    return rules


def canonical(rules: tuple[Rule, ...]) -> str:
    """The schedule as it is shown and compared."""
    return ", ".join(str(rule) for rule in rules)


def _rule(text: str, field: str) -> Rule:
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{field}: {text[:80]!r} is not a rule", hint=_HINT)
    named, number, unit, kept = match.groups()
    every_s = _NAMED_S[named] if named else int(number) * _UNITS_S[unit]
    name, keep = named or f"every {int(number)}{unit}", int(kept)
    if not SHORTEST_S <= every_s <= LONGEST_S:
        raise InvalidInput(f"{field}: {name!r} is not from every 1m to every 366d", hint=_HINT)
    if not 1 <= keep <= KEEP_LIMIT:
        raise InvalidInput(f"{field}: keep {keep} in {text[:80]!r}; must be 1 to 64", hint=_HINT)
    return Rule(name, every_s, keep)


def _check_together(rules: tuple[Rule, ...], field: str) -> None:
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{field}: {twice!r} is there twice", hint="keep one of them")
    kept = sum(rule.keep for rule in rules)
    if kept > KEPT_LIMIT:
        raise InvalidInput(
            f"{field}: keeps {kept} snapshots; at most {KEPT_LIMIT} together", hint="keep fewer"
        )
