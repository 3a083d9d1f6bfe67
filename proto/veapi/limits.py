"""What may be asked for beside the resources that are placed by: weights, swap, rates, and what init is given. Pure.

Raises InvalidInput that names field, value and limit; `veapi.validate` asks it for whole specs.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from veapi import schedule
from veapi.errors import InvalidInput
from veapi.units import format_bits, format_size

if TYPE_CHECKING:  # options of vectl ask this module, whose help must not import the model
    from veapi.model import Spec

MAX_CPU_WEIGHT = 10_000
MAX_IO_WEIGHT = 1_000
MAX_SWAP_BYTES = 64 << 40
MIN_IO_BPS, MAX_IO_BPS = 64 << 10, 1 << 40
MIN_NET_BPS, MAX_NET_BPS = 64_000, 34_000_000_000
"""The kernel's token buckets count to 2^32 bytes a second."""
MAX_INIT_ENV = 64
MAX_INIT_WORDS = 64
MAX_INIT_BYTES = 4096
"""Of environment and command each: both are part of the VE's record, which is small."""
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENV_HINT = "write NAME=value with letters, digits and '_' in the name, and no control characters"


def check(value: "Spec", *, prefix: str = "spec") -> None:
    """All fields of the spec that this module knows."""
    weight(f"{prefix}.cpu_weight", value.cpu_weight, MAX_CPU_WEIGHT)
    weight(f"{prefix}.io_weight", value.io_weight, MAX_IO_WEIGHT)
    swap_bytes(f"{prefix}.swap_bytes", value.swap_bytes)
    io_bps(f"{prefix}.io_read_bps", value.io_read_bps)
    io_bps(f"{prefix}.io_write_bps", value.io_write_bps)
    net_bps(f"{prefix}.net_in_bps", value.net_in_bps)
    net_bps(f"{prefix}.net_out_bps", value.net_out_bps)
    schedule.parse(value.snapshot_schedule, field=f"{prefix}.snapshot_schedule")
    init_env(f"{prefix}.env", value.env)
    init_command(f"{prefix}.command", value.command)


def weight(field: str, value: int, most: int) -> int:
    """A share, from 1; 0 is the default."""
    if not 0 <= value <= most:
        raise InvalidInput(
            f"{field}: {value}; must be 1 to {most}, or 0 for the default",
            hint="100 is the usual share; twice as much gets twice as much when it is short",
        )
    return value


def swap_bytes(field: str, value: int) -> int:
    if not 0 <= value <= MAX_SWAP_BYTES:
        limits = f"0 to {format_size(MAX_SWAP_BYTES)}"
        raise InvalidInput(f"{field}: {value} bytes; must be {limits}", hint=f"ask for {limits}")
    return value


def io_bps(field: str, value: int) -> int:
    """Bytes a second; 0: no limit."""
    if value and not MIN_IO_BPS <= value <= MAX_IO_BPS:
        limits = f"{format_size(MIN_IO_BPS)}/s to {format_size(MAX_IO_BPS)}/s, or 0 for no limit"
        raise InvalidInput(f"{field}: {value} bytes a second; must be {limits}", hint="e.g. 10M")
    return value


def net_bps(field: str, value: int) -> int:
    """Bits a second; 0: no limit."""
    if value and not MIN_NET_BPS <= value <= MAX_NET_BPS:
        limits = f"{format_bits(MIN_NET_BPS)} to {format_bits(MAX_NET_BPS)}, or 0 for no limit"
        raise InvalidInput(f"{field}: {value} bits a second; must be {limits}", hint="e.g. 100M")
    return value


def init_env(field: str, values: Mapping[str, str]) -> dict[str, str]:
    """The environment of a VE's init. No control characters: hosts write it into line-based files."""
    for key, value in values.items():
        if len(key) > 255 or _ENV_NAME.fullmatch(key) is None or _CONTROL.search(value):
            raise InvalidInput(f"{field}: {key[:80]!r} can't be a variable of init", hint=_ENV_HINT)
    total = sum(len(f"{key}={value}".encode()) for key, value in values.items())
    if len(values) > MAX_INIT_ENV or total > MAX_INIT_BYTES:
        raise InvalidInput(
            f"{field}: {len(values)} variables, {total} bytes; at most {MAX_INIT_ENV} and {MAX_INIT_BYTES}",
            hint="put what is longer into a file of the VE",
        )
    return dict(values)


def init_command(field: str, words: Sequence[str]) -> tuple[str, ...]:
    """What a VE runs as its init; empty: what its image says."""
    if words and not words[0]:
        raise InvalidInput(f"{field}: its first word is empty", hint="begin with a program")
    total = sum(len(word.encode()) + 1 for word in words)
    if len(words) > MAX_INIT_WORDS or total > MAX_INIT_BYTES:
        raise InvalidInput(
            f"{field}: {len(words)} words, {total} bytes; at most {MAX_INIT_WORDS} and {MAX_INIT_BYTES}",
            hint="put a script into the image and run that",
        )
    if any(_CONTROL.search(word) for word in words):
        raise InvalidInput(
            f"{field}: holds a control character", hint="put a script into the image and run that"
        )
    return tuple(words)
