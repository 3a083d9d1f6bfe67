"""Options for what a VE shall have, shared by create, clone and set. What was given is in `Session.asked`.

Each keeps its value there under the name that `Wanted` has for it, so no command has twenty arguments.
"""

import shlex
from collections.abc import Callable
from typing import TypeVar

import click

from veapi import limits, schedule, units
from veapi.errors import InvalidInput
from vectl import options
from vectl.options import Count, Cpu, Size, field_of
from vectl.session import Session

F = TypeVar("F", bound=Callable[..., object])
MAX_PIDS = 4_194_304
UNSET = "-"
"""Behind a key: take it away."""


class Checked(click.ParamType[object]):
    """A value that a function of (field, text) reads and checks."""

    def __init__(self, name: str, read: Callable[[str, str], object]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: object, param: click.Parameter | None, ctx: object) -> object:
        del ctx
        return self._read(field_of(param), str(value))


def _weight(most: int) -> Checked:
    def read(field: str, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise InvalidInput(f"{field}: {text[:80]!r} is not a whole number", hint="e.g. 100")
        return limits.weight(field, int(text), most)

    return Checked("weight", read)


def _swap(field: str, text: str) -> int:
    return limits.swap_bytes(field, units.parse_size(text, field=field))


def _io(field: str, text: str) -> int:
    return limits.io_bps(field, units.parse_byte_rate(text, field=field))


def _net(field: str, text: str) -> int:
    return limits.net_bps(field, units.parse_bit_rate(text, field=field))


def _priority(field: str, text: str) -> int:
    from veapi import wishes  # noqa: PLC0415  # the model is not for help

    return wishes.read_priority(field, text)


def _on_host_loss(field: str, text: str) -> str:
    from veapi import validate  # noqa: PLC0415  # the model is not for help

    return validate.on_host_loss(field, text).value


def _schedule(field: str, text: str) -> str:
    """`none` is how a schedule is taken away."""
    wanted = "" if text.strip().lower() == "none" else text
    return schedule.canonical(schedule.parse(wanted, field=field))


def _words(field: str, text: str) -> tuple[str, ...]:
    try:
        return limits.init_command(field, shlex.split(text))
    except ValueError as error:
        raise InvalidInput(
            f"{field}: {text[:80]!r} can't be split into words: {error}", hint="close the quotes"
        ) from None


class Pairs(click.ParamType[tuple[str, str | None]]):
    """`K=V`; with `removal` also `K-`, whose value is None."""

    def __init__(self, name: str, *, removal: bool) -> None:
        self.name = name
        self._removal = removal

    def convert(
        self, value: object, param: click.Parameter | None, ctx: object
    ) -> tuple[str, str | None]:
        del ctx
        key, equals, text = str(value).partition("=")
        if key and equals:
            return key, text
        if self._removal and not equals and key.endswith(UNSET) and key != UNSET:
            return key.removesuffix(UNSET), None
        how = "write KEY=value" + (", or KEY- to take it away" if self._removal else "")
        raise InvalidInput(f"{field_of(param)}: {str(value)[:80]!r} is not a pair", hint=how)


_SIMPLE: tuple[tuple[str, str, click.ParamType[object] | click.ParamType[int], str], ...] = (
    ("--cpu", "cpu_millis", Cpu(), "Cores, e.g. 2 or 0.5."),
    (
        "--cpu-weight",
        "cpu_weight",
        _weight(limits.MAX_CPU_WEIGHT),
        "Share of the processors when they are short, 1 to 10000; 0: 100 for each core.",
    ),
    ("--memory", "memory_bytes", Size(), "Memory, e.g. 1G."),
    ("--swap", "swap_bytes", Checked("size", _swap), "Swap on top of the memory; 0: none."),
    ("--pids", "pids", Count(MAX_PIDS), "Processes and threads at most."),
    ("--disk", "disk_bytes", Size(), "Disk of root and snapshots, e.g. 10G."),
    (
        "--io-weight",
        "io_weight",
        _weight(limits.MAX_IO_WEIGHT),
        "Share of the disk when it is busy, 1 to 1000; 0: 100.",
    ),
    ("--io-read", "io_read_bps", Checked("rate", _io), "Bytes a second, e.g. 50M; 0: no limit."),
    ("--io-write", "io_write_bps", Checked("rate", _io), "Bytes a second, e.g. 50M; 0: no limit."),
    ("--net-in", "net_in_bps", Checked("rate", _net), "Bits a second, e.g. 100M; 0: no limit."),
    ("--net-out", "net_out_bps", Checked("rate", _net), "Bits a second, e.g. 100M; 0: no limit."),
    (
        "--priority",
        "priority",
        Checked("number", _priority),
        "Who waits for a host: the higher first, -1000 to 1000; 0 is the usual.",
    ),
    ("--ip", "ip", click.STRING, "Address out of the cluster's pool."),
    (
        "--on-host-loss",
        "on_host_loss",
        Checked("policy", _on_host_loss),
        "stay: it waits for its host; recreate: it begins anew of its image on another one.",
    ),
    (
        "--snapshots",
        "snapshot_schedule",
        Checked("schedule", _schedule),
        'When snapshots are taken, e.g. "every 6h keep 4, daily keep 7"; none: never.',
    ),
    (
        "--command",
        "command",
        Checked("words", _words),
        "What runs as init, e.g. 'sh -c \"...\"'; empty: what the image says.",
    ),
)


def spec_options(*, removal: bool = False) -> Callable[[F], F]:
    """All of them. With `removal`, labels and variables can also be taken away by `KEY-`."""

    def add(function: F) -> F:
        env = "Variable of init, NAME=value" + (" or NAME-" if removal else "") + "; many times."
        label = "k=v" + (" or k-" if removal else "") + "; many times."
        function = wish_options(function)
        function = _pairs("--label", "labels", removal=removal, text=label)(function)
        function = _pairs("--env", "env", removal=removal, text=env)(function)
        for name, field, kind, text in reversed(_SIMPLE):
            function = click.option(
                name, type=kind, help=text, expose_value=False, callback=_keep(field)
            )(function)
        return function

    return add


def _pairs(name: str, field: str, *, removal: bool, text: str) -> Callable[[F], F]:
    kind = Pairs("k=v", removal=removal)
    return click.option(
        name, type=kind, multiple=True, help=text, expose_value=False, callback=_keep_pairs(field)
    )


def _keep(field: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
        del param
        if value is not None:
            ctx.ensure_object(Session).asked[field] = value

    return keep


def _keep_pairs(field: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
        del param
        assert isinstance(value, tuple)
        if value:
            ctx.ensure_object(Session).asked[field] = dict(value)

    return keep


_WISHES = {
    "require": "Labels that the host must have, e.g. 'disk in (ssd,nvme)'; many times.",
    "prefer": "Labels that it should have, e.g. 'gen>3 weight 50'; many times.",
    "tolerate": "Taint of a host that is no matter, e.g. gpu or gpu=a100; many times.",
    "near": "VEs to be near, e.g. 'app=db over rack'; many times.",
    "apart": "VEs to be apart from, e.g. 'app=web over rack max 2'; many times.",
    "spread": "VEs to be spread among, e.g. 'app=web over rack skew 1'; many times.",
}


def wish_options(function: F) -> F:
    """What it wishes of its host; `none` alone takes all of a kind away."""
    for kind, text in reversed(_WISHES.items()):
        function = click.option(
            f"--{kind}",
            type=click.STRING,
            multiple=True,
            help=text,
            expose_value=False,
            callback=_keep_wishes,
        )(function)
    return function


def _keep_wishes(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    if value:
        from veapi import wishes  # noqa: PLC0415  # the model is not for help

        kind = field_of(param)
        texts = () if value == ("none",) else value
        ctx.ensure_object(Session).asked[kind] = wishes.read(kind, texts, prefix="")


host_option = click.option(
    "--host", shell_complete=options.complete_host, help="The one host that may run it."
)
