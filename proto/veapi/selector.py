"""Label selectors: `k=v`, `k!=v`, `k`, `!k`, `k in (a,b)`, `k notin (a,b)`, `k>3`, `k<3`, joined by commas; all terms must hold.

As in Kubernetes, `k!=v` and `k notin (...)` also hold where there is no label `k`. `>` and `<` compare whole numbers; a label
that is none does not hold. An empty selector selects everything.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from veapi import validate
from veapi.errors import InvalidInput

MAX_TERMS = 32
MAX_VALUES = 64
Labels = Mapping[str, str]
Selector = Callable[[Labels], bool]
_HINT = "write terms like tier=web, tier!=db, tier, !tier, zone in (a,b) or gen>3, joined by commas"
_SET = re.compile(r"(\S+) +(in|notin) *\(([^()]*)\)", re.ASCII)
_ORDER = re.compile(r"([^<>]*)([<>])([^<>]*)", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on one label. `operator`: =, !=, in, notin, exists, absent, > or <."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __call__(self, labels: Labels) -> bool:
        return self.holds(labels.get(self.key))

    def holds(self, value: str | None) -> bool:
        """Of the label's value; None: there is no such label."""
        match self.operator:
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case "=" | "in":
                return value in self.values
            case "!=" | "notin":
                return value not in self.values
            case _:
                return value is not None and self._beyond(value)

    def _beyond(self, value: str) -> bool:
        if _NUMBER.fullmatch(value) is None:
            return False
        number, limit = int(value), int(self.values[0])
        return number > limit if self.operator == ">" else number < limit

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "absent":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case _:
                return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class Terms:
    """All of them must hold."""

    terms: tuple[Term, ...]

    def __call__(self, labels: Labels) -> bool:
        return all(term(labels) for term in self.terms)

    def __str__(self) -> str:
        return ",".join(str(term) for term in self.terms)


def selector(text: str) -> Selector:
    """What decides whether labels are selected. InvalidInput names the term that can't be read."""
    return terms(text)


@lru_cache(maxsize=4096)
def terms(text: str) -> Terms:
    """As `selector`, as a value; its text is the canonical form."""
    if not text.strip(" "):
        return Terms(())
    parts = list(_split(text))
    if len(parts) > MAX_TERMS:
        raise InvalidInput(f"selector: {len(parts)} terms; at most {MAX_TERMS}", hint=_HINT)
    return Terms(tuple(_term(part.strip(" ")) for part in parts))


def _split(text: str) -> Iterator[str]:
    """At commas that are not within parentheses."""
    depth, start = 0, 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _term(text: str) -> Term:
    found = _SET.fullmatch(text)
    if found is not None:
        return _of_set(text, found)
    if text.startswith("!"):
        return Term(_key(text[1:].strip(" "), text), "absent")
    for operator in ("!=", "==", "="):
        head, there, tail = text.partition(operator)
        if there:
            key = _key(head.strip(" "), text)
            return Term(key, operator.replace("==", "="), (_value(key, tail.strip(" ")),))
    found = _ORDER.fullmatch(text)
    if found is not None:
        return _of_order(text, found)
    return Term(_key(text, text), "exists")


def _of_set(text: str, found: re.Match[str]) -> Term:
    key = _key(found[1], text)
    values = sorted({_value(key, value.strip(" ")) for value in found[3].split(",")})
    if len(values) > MAX_VALUES or not all(values):
        raise InvalidInput(
            f"selector: {text[:80]!r} must name 1 to {MAX_VALUES} values", hint=_HINT
        )
    return Term(key, found[2], tuple(values))


def _of_order(text: str, found: re.Match[str]) -> Term:
    key, limit = _key(found[1].strip(" "), text), found[3].strip(" ")
    if _NUMBER.fullmatch(limit) is None:
        raise InvalidInput(f"selector: {text[:80]!r} compares with no whole number", hint=_HINT)
    return Term(key, found[2], (str(int(limit)),))


def _value(key: str, value: str) -> str:
    return validate.label_value(f"selector: value of {key}", value)


def _key(key: str, term: str) -> str:
    if not key:
        raise InvalidInput(f"selector: {term[:80]!r} has no label key", hint=_HINT)
    return validate.label_key("selector", key)
