"""Label selectors: `k=v`, `k!=v`, `k`, `!k`, joined by commas; all terms must hold.

As in Kubernetes, `k!=v` also holds where there is no label `k`. An empty selector selects everything.
"""

from collections.abc import Callable, Mapping

from veapi import validate
from veapi.errors import InvalidInput

MAX_TERMS = 32
Labels = Mapping[str, str]
Selector = Callable[[Labels], bool]
_HINT = "write terms like tier=web, tier!=db, tier or !tier, joined by commas"


def selector(text: str) -> Selector:
    """What decides whether labels are selected. InvalidInput names the term that can't be read."""
    if not text.strip(" "):
        return lambda _labels: True
    parts = text.split(",")
    if len(parts) > MAX_TERMS:
        raise InvalidInput(f"selector: {len(parts)} terms; at most {MAX_TERMS}", hint=_HINT)
    terms = [_term(part.strip(" ")) for part in parts]
    return lambda labels: all(term(labels) for term in terms)


def _term(text: str) -> Selector:
    if text.startswith("!"):
        key = _key(text[1:].strip(" "), text)
        return lambda labels: key not in labels
    for operator in ("!=", "==", "="):
        head, found, tail = text.partition(operator)
        if found:
            return _comparison(_key(head.strip(" "), text), tail.strip(" "), equal=operator != "!=")
    key = _key(text, text)
    return lambda labels: key in labels


def _comparison(key: str, value: str, *, equal: bool) -> Selector:
    validate.label_value(f"selector: value of {key}", value)
    if equal:
        return lambda labels: labels.get(key) == value
    return lambda labels: labels.get(key) != value


def _key(key: str, term: str) -> str:
    if not key:
        raise InvalidInput(f"selector: {term[:80]!r} has no label key", hint=_HINT)
    return validate.label_key("selector", key)
