"""What a VE wishes of the host that it gets, and what a host asks of VEs, as people write it.

    require:  disk in (ssd,nvme)               the host's labels must be so
    prefer:   gen>3 weight 50                  they should be (weight 1 to 100)
    tolerate: gpu  or  gpu=a100                it may be on a host that is tainted so
    near:     app=db over rack [prefer 50]     a VE of these labels is in the same rack
    apart:    app=web over rack [max 2] [prefer 50]    at most 1 (or 2) of them in a rack
    spread:   app=web over rack [skew 1] [prefer 50]   no rack has more than 1 more of them than another

`over` is a label of hosts, or `host`; left out, it is `host`. VEs are those of the same project. Each function returns the
canonical text and raises InvalidInput that names the field.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from veapi import selector, validate
from veapi.errors import InvalidInput
from veapi.selector import Terms

MAX_WISHES = 16
MAX_WEIGHT = 100
USUAL_WEIGHT = 10
MAX_LIMIT = 10_000
TEXT_LIMIT = 512
MOST_PRIORITY = 1000
HOST = "host"
PREFERRED = ":prefer"
_WEIGHED = re.compile(r"(?P<match>.+?)(?: +weight +(?P<weight>[0-9]{1,4}))?", re.ASCII)
_AMONG = re.compile(
    r"(?P<match>.+?)(?: +over +(?P<over>\S+))?(?: +(?P<word>max|skew) +(?P<limit>[0-9]{1,6}))?"
    r"(?P<prefer> +prefer(?: +(?P<weight>[0-9]{1,4}))?)?",
    re.ASCII,
)
_WHOLE = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_WORDS = {"near": "", "apart": "max", "spread": "skew"}
_HINTS = {
    "near": "write e.g. app=db over rack, or app=db over rack prefer 50",
    "apart": "write e.g. app=web over rack, or app=web over rack max 2 prefer",
    "spread": "write e.g. app=web over rack, or app=web over rack skew 2 prefer",
}


@dataclass(frozen=True, slots=True)
class Preferred:
    """Hosts that should be taken, and how much that counts."""

    match: Terms
    weight: int

    def __str__(self) -> str:
        return f"{self.match} weight {self.weight}"


@dataclass(frozen=True, slots=True)
class Among:
    """A wish about other VEs. `limit`: of apart and spread; `weight` 0: it must be so."""

    kind: str
    match: Terms
    over: str
    limit: int
    weight: int

    def __str__(self) -> str:
        word = _WORDS[self.kind]
        limit = f" {word} {self.limit}" if word and self.limit != 1 else ""
        prefer = f" prefer {self.weight}" if self.weight else ""
        return f"{self.match} over {self.over}{limit}{prefer}"


@dataclass(frozen=True, slots=True)
class Taint:
    """What a host asks VEs to tolerate. `preferred`: others come only when nothing else fits."""

    key: str
    value: str
    preferred: bool

    def __str__(self) -> str:
        value = f"={self.value}" if self.value else ""
        return f"{self.key}{value}{PREFERRED if self.preferred else ''}"

    def tolerated(self, tolerations: Iterable[str]) -> bool:
        """By its key alone, or by key and value."""
        own = (self.key, f"{self.key}={self.value}")
        return any(toleration in own for toleration in tolerations)


def require(field: str, text: str) -> str:
    """A selector that selects something."""
    return str(_match(field, text, "write e.g. disk in (ssd,nvme), gen>3 or !old"))


def prefer(field: str, text: str) -> str:
    return str(preferred(text, field=field))


def tolerate(field: str, text: str) -> str:
    """A key, or key=value."""
    key, equals, value = text.partition("=")
    validate.label_key(field, key)
    return f"{key}={_value(field, value)}" if equals else key


def near(field: str, text: str) -> str:
    return str(among("near", text, field=field))


def apart(field: str, text: str) -> str:
    return str(among("apart", text, field=field))


def spread(field: str, text: str) -> str:
    return str(among("spread", text, field=field))


READERS: Mapping[str, Callable[[str, str], str]] = {
    "require": require,
    "prefer": prefer,
    "tolerate": tolerate,
    "near": near,
    "apart": apart,
    "spread": spread,
}
"""By the name of the field of a spec: (field, text) to the canonical text."""


def read(kind: str, texts: Iterable[str], *, prefix: str = "spec") -> tuple[str, ...]:
    """All wishes of one field, checked; the same one twice is one."""
    field = f"{prefix}.{kind}".lstrip(".")
    found = tuple(dict.fromkeys(READERS[kind](field, text.strip()) for text in texts))
    if len(found) > MAX_WISHES:
        raise InvalidInput(f"{field}: {len(found)}; at most {MAX_WISHES}", hint="join selectors")
    return found


@lru_cache(maxsize=4096)
def preferred(text: str, *, field: str = "prefer") -> Preferred:
    hint = "write e.g. gen>3 weight 50"
    found = _WEIGHED.fullmatch(_short(field, text))
    if found is None:
        raise InvalidInput(f"{field}: {text[:80]!r} can't be read", hint=hint)
    return Preferred(_match(field, found["match"], hint), _weight(field, found["weight"]))


@lru_cache(maxsize=4096)
def among(kind: str, text: str, *, field: str = "") -> Among:
    field, hint = field or kind, _HINTS[kind]
    found = _AMONG.fullmatch(_short(field, text))
    if found is None or (found["word"] or _WORDS[kind]) != _WORDS[kind]:
        raise InvalidInput(f"{field}: {text[:80]!r} can't be read", hint=hint)
    limit = int(found["limit"] or 1)
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(f"{field}: {limit} must be 1 to {MAX_LIMIT}", hint=hint)
    return Among(
        kind=kind,
        match=_match(field, found["match"], hint),
        over=validate.label_key(field, found["over"] or HOST),
        limit=limit,
        weight=_weight(field, found["weight"]) if found["prefer"] else 0,
    )


def priority(field: str, value: int) -> int:
    """Of those that wait for a host the higher comes first."""
    if not -MOST_PRIORITY <= value <= MOST_PRIORITY:
        raise InvalidInput(
            f"{field}: {value}; must be -{MOST_PRIORITY} to {MOST_PRIORITY}", hint="0 is the usual"
        )
    return value


def read_priority(field: str, text: str) -> int:
    """As `priority`, of what a person wrote."""
    if _WHOLE.fullmatch(text) is None:
        raise InvalidInput(f"{field}: {text[:80]!r} is not a whole number", hint="write e.g. 100")
    return priority(field, int(text))


def taint(field: str, text: str) -> str:
    """KEY[=VALUE][:prefer]."""
    return str(taint_of(text, field=field))


@lru_cache(maxsize=4096)
def taint_of(text: str, *, field: str = "taint") -> Taint:
    plain = text.removesuffix(PREFERRED)
    key, equals, value = plain.partition("=")
    validate.label_key(field, key)
    return Taint(key, _value(field, value) if equals else "", text.endswith(PREFERRED))


def _value(field: str, value: str) -> str:
    if not value:
        raise InvalidInput(f"{field}: there is no value after =", hint="write e.g. gpu=a100")
    return validate.label_value(field, value)


def _match(field: str, text: str, hint: str) -> Terms:
    try:
        found = selector.terms(_short(field, text))
    except InvalidInput as error:
        raise InvalidInput(f"{field}: {error.message}", hint=error.hint) from None
    if not found.terms:
        raise InvalidInput(f"{field}: is empty", hint=hint)
    return found


def _weight(field: str, text: str | None) -> int:
    weight = USUAL_WEIGHT if text is None else int(text)
    if not 1 <= weight <= MAX_WEIGHT:
        raise InvalidInput(
            f"{field}: weight {weight}; must be 1 to {MAX_WEIGHT}", hint="leave it out for 10"
        )
    return weight


def _short(field: str, text: str) -> str:
    if len(text) > TEXT_LIMIT:
        raise InvalidInput(
            f"{field}: has {len(text)} characters; at most {TEXT_LIMIT}", hint="shorten it"
        )
    return text.strip(" ")
