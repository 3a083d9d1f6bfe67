"""What may be asked for: names, labels and limits of a spec. The controller decides by it; agent and vectl ask it too.

Each function returns the value that it accepts and raises InvalidInput that names field, value and limit. Regular
expressions are ASCII and match the whole text, so that unicode digits and trailing newlines are refused.
"""

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from veapi import limits
from veapi.errors import InvalidInput
from veapi.model import Digest, OnHostLoss, Run, Spec
from veapi.units import format_cpu, format_size

NAME_LIMIT = 63
LABELS_LIMIT = 64
IMAGE_NAME_LIMIT = 128
MIN_CPU_MILLIS, MAX_CPU_MILLIS = 10, 1_024_000
MIN_MEMORY_BYTES, MAX_MEMORY_BYTES = 8 << 20, 64 << 40
MIN_DISK_BYTES, MAX_DISK_BYTES = 16 << 20, 1 << 50
MIN_PIDS, MAX_PIDS = 8, 4_194_304
MAX_STOP_TIMEOUT_S = 3600
MAX_REPLICAS = 1000
MAX_COMMAND_BYTES = 128 << 10
MAX_COMMAND_WORDS = 4096
MAX_ENV = 256
SPEC_LIMIT_BYTES = 8192
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(rf"{_NAME.pattern}(?:\.{_NAME.pattern})*", re.ASCII)
_IMAGE = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}", re.ASCII)
_NAME_HINT = (
    "use a-z, 0-9 and '-', starting and ending with a letter or digit, at most 63 characters"
)
_LABEL_HINT = "use letters, digits, '-', '_' and '.', starting and ending with a letter or digit, at most 63 characters"

E = TypeVar("E", Run, OnHostLoss)


def name(field: str, value: str) -> str:
    """An RFC 1123 label: also a host name, and safe in paths."""
    if not value:
        raise InvalidInput(f"{field}: is empty", hint=_NAME_HINT)
    if len(value) > NAME_LIMIT:
        raise _bad(field, value, f"has {len(value)} characters; at most {NAME_LIMIT}", _NAME_HINT)
    if _NAME.fullmatch(value) is None:
        raise _bad(field, value, "is not a name", _NAME_HINT)
    return value


def at_most(field: str, value: str, characters: int) -> str:
    """Free text that is only limited in length."""
    if len(value) > characters:
        raise _bad(field, value, f"has {len(value)} characters; at most {characters}", "shorten it")
    return value


def label_key(field: str, value: str) -> str:
    """`tier` or `example.org/tier`."""
    prefix, slash, tail = value.rpartition("/")
    if slash and (len(prefix) > 253 or _SUBDOMAIN.fullmatch(prefix) is None):
        raise _bad(field, value, "has no DNS name before the '/'", "write e.g. example.org/tier")
    if len(tail) > NAME_LIMIT or _LABEL.fullmatch(tail) is None:
        raise _bad(field, value, "is not a label key", _LABEL_HINT)
    return value


def label_value(field: str, value: str) -> str:
    """May be empty."""
    if len(value) > NAME_LIMIT or (value and _LABEL.fullmatch(value) is None):
        raise _bad(field, value, "is not a label value", _LABEL_HINT)
    return value


def labels(field: str, values: Mapping[str, str]) -> dict[str, str]:
    if len(values) > LABELS_LIMIT:
        raise InvalidInput(
            f"{field}: {len(values)} labels; at most {LABELS_LIMIT}",
            hint="keep labels for what you select by",
        )
    return {
        label_key(field, key): label_value(f"{field}.{key}", value) for key, value in values.items()
    }


def digest(field: str, value: str) -> Digest:
    if _DIGEST.fullmatch(value) is None:
        raise _bad(field, value, "is not a digest", "write sha256: and 64 hexadecimal digits")
    return Digest(value)


def is_digest(value: str) -> bool:
    return _DIGEST.fullmatch(value) is not None


def image_name(field: str, value: str) -> str:
    """A tag, e.g. `debian` or `debian:12`; never something that could be a digest."""
    hint = "use e.g. debian or debian:12: a-z, 0-9, '.', '_' and '-', and a tag after ':'"
    if not value:
        raise InvalidInput(f"{field}: is empty", hint=hint)
    if len(value) > IMAGE_NAME_LIMIT:
        limit = f"has {len(value)} characters; at most {IMAGE_NAME_LIMIT}"
        raise _bad(field, value, limit, hint)
    if _IMAGE.fullmatch(value) is None or value.startswith("sha256:"):
        raise _bad(field, value, "is not an image name", hint)
    return value


def image_ref(field: str, value: str) -> str:
    """A tag or a digest."""
    return value if is_digest(value) else image_name(field, value)


def cpu_millis(field: str, cores: float) -> int:
    """Thousandths of a core of a number of cores that came over the wire."""
    hint = f"ask for {format_cpu(MIN_CPU_MILLIS)} to {format_cpu(MAX_CPU_MILLIS)} cores"
    if not math.isfinite(cores):
        raise _bad(field, str(cores), "is not a number of cores", hint)
    if not MIN_CPU_MILLIS <= cores * 1000 <= MAX_CPU_MILLIS:
        limits = f"{format_cpu(MIN_CPU_MILLIS)} to {format_cpu(MAX_CPU_MILLIS)}"
        raise InvalidInput(f"{field}: {cores:g} cores; must be {limits}", hint=hint)
    return round(cores * 1000)


def size_bytes(field: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        limits = f"{format_size(least)} to {format_size(most)}"
        shown = f"{value} bytes ({format_size(value)})" if value >= 1024 else f"{value} bytes"
        raise InvalidInput(f"{field}: {shown}; must be {limits}", hint=f"ask for {limits}")
    return value


def pids(field: str, value: int) -> int:
    if not MIN_PIDS <= value <= MAX_PIDS:
        limits = f"{MIN_PIDS} to {MAX_PIDS}"
        raise InvalidInput(f"{field}: {value}; must be {limits}", hint=f"ask for {limits}")
    return value


def replicas(field: str, value: int) -> int:
    """Of a group."""
    if not 0 <= value <= MAX_REPLICAS:
        raise InvalidInput(
            f"{field}: {value}; must be 0 to {MAX_REPLICAS}", hint="make several groups"
        )
    return value


def ipv4(field: str, value: str) -> str:
    """A plain IPv4 address in its usual form."""
    try:
        return str(ipaddress.IPv4Address(value))
    except ipaddress.AddressValueError:
        raise _bad(field, value, "is not an IPv4 address", "write e.g. 10.66.0.7") from None


def run(field: str, value: str) -> Run:
    return _one_of(Run, field, value)


def on_host_loss(field: str, value: str) -> OnHostLoss:
    """`replica` is a policy to come: refused, with what there is instead."""
    if value == "replica":
        raise InvalidInput(
            f"{field}: 'replica' can't be asked for yet, as disks are not replicated",
            hint="use recreate, which begins anew of the image on another host, or stay",
        )
    return _one_of(OnHostLoss, field, value)


def stop_timeout_s(field: str, value: float) -> float:
    if not 0 <= value <= MAX_STOP_TIMEOUT_S:  # NaN is outside as well
        raise InvalidInput(
            f"{field}: {value:g} s; must be 0 to {MAX_STOP_TIMEOUT_S}",
            hint="ask for an hour at most, or force the stop",
        )
    return value


def spec(value: Spec, *, prefix: str = "spec") -> Spec:
    """The whole spec. Its enums are right by type; text and amounts are checked here."""
    image_ref(f"{prefix}.image", value.image)
    cpu_millis(f"{prefix}.cpu", value.cpu_millis / 1000)
    size_bytes(f"{prefix}.memory_bytes", value.memory_bytes, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES)
    size_bytes(f"{prefix}.disk_bytes", value.disk_bytes, MIN_DISK_BYTES, MAX_DISK_BYTES)
    pids(f"{prefix}.pids", value.pids)
    if value.ip:
        ipv4(f"{prefix}.ip", value.ip)
    if value.host:
        name(f"{prefix}.host", value.host)
    limits.check(value, prefix=prefix)
    return value


def command(field: str, words: Sequence[str]) -> tuple[str, ...]:
    """What exec shall run: at least one word, no NUL, 128 KiB at most."""
    if not words or not words[0]:
        raise InvalidInput(f"{field}: is empty", hint="write the command after --")
    total = sum(len(word.encode()) + 1 for word in words)
    if total > MAX_COMMAND_BYTES or len(words) > MAX_COMMAND_WORDS:
        raise InvalidInput(
            f"{field}: {len(words)} words, {total} bytes; at most {MAX_COMMAND_WORDS} and {MAX_COMMAND_BYTES}",
            hint="put a script into the VE and run that",
        )
    if any("\0" in word for word in words):
        raise InvalidInput(f"{field}: holds a NUL byte", hint="remove the NUL byte")
    return tuple(words)


def environment(field: str, values: Mapping[str, str]) -> dict[str, str]:
    hint = "write NAME=value with letters, digits and '_' in the name"
    if len(values) > MAX_ENV:
        raise InvalidInput(f"{field}: {len(values)} variables; at most {MAX_ENV}", hint=hint)
    for key, value in values.items():
        if _ENV_NAME.fullmatch(key) is None or "\0" in value:
            raise _bad(field, key, "can't be an environment variable", hint)
    return dict(values)


def terminal(field: str, value: str) -> str:
    """A value of TERM, or empty."""
    if value and _TERM.fullmatch(value) is None:
        raise _bad(field, value, "is not a terminal type", "set TERM to e.g. xterm-256color")
    return value


def _one_of(kind: type[E], field: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(kind)
        raise _bad(field, value, "is not known", f"use one of: {allowed}") from None


def _bad(field: str, value: str, why: str, hint: str) -> InvalidInput:
    return InvalidInput(f"{field}: {value[:80]!r} {why}", hint=hint)
