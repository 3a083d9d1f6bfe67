"""Sizes, CPU and durations as people write them. All size suffixes are binary: 1K is 1024, as 1Ki and 1KiB are.

Only ASCII digits count; a sign, NaN, infinity or anything that is not whole bytes or thousandths of a core is refused
by InvalidInput that names the field.
"""

import re
from fractions import Fraction

from veapi.errors import InvalidInput

MAX_SIZE_BYTES = 2**63 - 1
MAX_DURATION_S = 10 * 365 * 86_400
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) ?(?:([KMGTP])I?)?B?", re.ASCII | re.IGNORECASE)
_BYTE_RATE = re.compile(rf"({_SIZE.pattern})(?:/s|ps)?", re.ASCII | re.IGNORECASE)
_BIT_RATE = re.compile(
    r"([0-9]{1,20}(?:\.[0-9]{1,9})?) ?([KMGT])?(?:b(?:its?)?)?(?:/s|ps)?", re.ASCII | re.IGNORECASE
)
_NO_LIMIT = frozenset(("none", "unlimited"))
_CPU = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(m?)", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)", re.ASCII)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)
_SECONDS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
}
_SIZE_HINT = "write a number with K, M, G or T, e.g. 512M or 1.5G"
_BYTE_RATE_HINT = "write bytes a second, e.g. 10M or 512K/s; 0 or none: no limit"
_BIT_RATE_HINT = "write bits a second, e.g. 100M or 1Gbit; 0 or none: no limit"
_CPU_HINT = "write cores, e.g. 2 or 0.5, or thousandths of a core, e.g. 500m"
_DURATION_HINT = "write a number with ms, s, m, h or d, e.g. 30s or 1h30m"


def parse_size(value: str | float, *, field: str = "size") -> int:
    """Bytes of `1G`, `512M`, `1.5GiB` or a number of bytes."""
    match = _SIZE.fullmatch(_text(value))
    if match is None:
        raise _refused(field, value, "is not a size", _SIZE_HINT)
    unit = (match[2] or "").upper()
    exact = Fraction(match[1]) * 1024 ** _POWERS[unit]
    if exact > MAX_SIZE_BYTES:
        raise _refused(field, value, "is more than 2^63-1 bytes", _SIZE_HINT)
    if not unit and exact.denominator != 1:
        raise _refused(field, value, "is not a whole number of bytes", _SIZE_HINT)
    return int(exact)


def format_size(size_bytes: int) -> str:
    """`512M`, `1.5G`: the largest unit that gives at least 1, rounded to one decimal."""
    power, unit = max(
        ((power, unit) for unit, power in _POWERS.items() if abs(size_bytes) >= 1024**power),
        default=(0, ""),
    )
    tenths = round(Fraction(size_bytes * 10, 1024**power))
    if tenths % 10 == 0:
        return f"{tenths // 10}{unit}"
    return f"{tenths / 10:.1f}{unit}"


def parse_byte_rate(value: str | float, *, field: str = "rate") -> int:
    """Bytes a second of `10M`, `512K/s` or a number of bytes; 0 of `0` and `none`: no limit."""
    text = _text(value)
    if text.lower() in _NO_LIMIT:
        return 0
    match = _BYTE_RATE.fullmatch(text)
    if match is None:
        raise _refused(field, value, "is not a rate of bytes", _BYTE_RATE_HINT)
    return parse_size(match[1], field=field)


def parse_bit_rate(value: str | float, *, field: str = "rate") -> int:
    """Bits a second of `100M`, `1Gbit` or `1.5gbit/s`; as everywhere with networks K is 1000. 0 of `0` and `none`: no limit."""
    text = _text(value)
    if text.lower() in _NO_LIMIT:
        return 0
    match = _BIT_RATE.fullmatch(text)
    if match is None:
        raise _refused(field, value, "is not a rate of bits", _BIT_RATE_HINT)
    exact = Fraction(match[1]) * 1000 ** _POWERS[(match[2] or "").upper()]
    if exact > MAX_SIZE_BYTES:
        raise _refused(field, value, "is more than 2^63-1 bits", _BIT_RATE_HINT)
    if exact.denominator != 1:
        raise _refused(field, value, "is not a whole number of bits", _BIT_RATE_HINT)
    return int(exact)


def format_bits(bps: int) -> str:
    """`100Mbit/s`: the largest decimal unit that gives at least 1, rounded to one decimal."""
    power, unit = max(
        ((power, unit) for unit, power in _POWERS.items() if bps >= 1000**power), default=(0, "")
    )
    tenths = round(Fraction(bps * 10, 1000**power))
    number = f"{tenths // 10}" if tenths % 10 == 0 else f"{tenths / 10:.1f}"
    return f"{number}{unit}bit/s"


def parse_cpu(value: str | float, *, field: str = "cpu") -> int:
    """Thousandths of a core of `2`, `0.5` or `500m`."""
    match = _CPU.fullmatch(_text(value))
    if match is None:
        raise _refused(field, value, "is not an amount of CPU", _CPU_HINT)
    millis = Fraction(match[1]) * (1 if match[2] else 1000)
    if millis.denominator != 1:
        raise _refused(field, value, "is finer than a thousandth of a core", _CPU_HINT)
    return int(millis)


def format_cpu(cpu_millis: int) -> str:
    """Cores, without needless zeros: `2`, `0.5`, `0.125`."""
    return f"{cpu_millis / 1000:.3f}".rstrip("0").rstrip(".")


def parse_duration(value: str | float, *, field: str = "duration") -> float:
    """Seconds of `30s`, `5m`, `1h30m`, `500ms` or a number of seconds."""
    text = _text(value)
    if _NUMBER.fullmatch(text):
        text += "s"
    if _DURATION.fullmatch(text) is None:
        raise _refused(field, value, "is not a duration", _DURATION_HINT)
    total = sum(Fraction(part[1]) * _SECONDS[part[2]] for part in _DURATION_PART.finditer(text))
    if total > MAX_DURATION_S:
        raise _refused(field, value, "is more than ten years", _DURATION_HINT)
    return float(total)


def _text(value: str | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"  # never a number
    return value.strip(" \t") if isinstance(value, str) else repr(value)


def _refused(field: str, value: object, why: str, hint: str) -> InvalidInput:
    return InvalidInput(f"{field}: {str(value)[:80]!r} {why}", hint=hint)
