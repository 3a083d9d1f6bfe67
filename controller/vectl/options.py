"""Options and value types that commands share."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click
from click.shell_completion import CompletionItem

from veapi import units
from veapi.errors import InvalidInput
from vectl.session import Session

if TYPE_CHECKING:
    from vectl.client import Client

F = TypeVar("F", bound=Callable[..., object])
FORMATS = ("table", "wide", "json", "yaml", "name")
DEFAULT_TIMEOUT_S = 60.0
_COMPLETION_LIMIT_S = 2.0


class Size(click.ParamType[int]):
    """Bytes, e.g. 512M; more than none."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: object) -> int:
        del ctx
        return _positive(units.parse_size(str(value), field=field_of(param)), value, param)


class Cpu(click.ParamType[int]):
    """Thousandths of a core, e.g. of 0.5; more than none."""

    name = "cores"

    def convert(self, value: object, param: click.Parameter | None, ctx: object) -> int:
        del ctx
        return _positive(units.parse_cpu(str(value), field=field_of(param)), value, param)


class Count(click.ParamType[int]):
    """A number from 1 to `most`."""

    name = "number"

    def __init__(self, most: int) -> None:
        self.most = most

    def convert(self, value: object, param: click.Parameter | None, ctx: object) -> int:
        del ctx
        text = str(value)
        if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= self.most):
            raise InvalidInput(
                f"{field_of(param)}: {text[:80]!r} is not a number from 1 to {self.most}",
                hint="write a whole number",
            )
        return int(text)


class Duration(click.ParamType[float]):
    """Seconds, e.g. of 30s."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: object) -> float:
        del ctx
        if isinstance(value, float):
            return value
        return units.parse_duration(str(value), field=field_of(param))


class Label(click.ParamType[tuple[str, str]]):
    """A pair of `k=v`."""

    name = "k=v"

    def convert(self, value: object, param: click.Parameter | None, ctx: object) -> tuple[str, str]:
        del ctx
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            raise InvalidInput(
                f"{field_of(param)}: {str(value)[:80]!r} is not a label", hint="write e.g. tier=web"
            )
        return key, text


class Variable(click.ParamType[tuple[str, str]]):
    """A pair of `K=V`; V may be empty."""

    name = "K=V"

    def convert(self, value: object, param: click.Parameter | None, ctx: object) -> tuple[str, str]:
        del ctx
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            raise InvalidInput(
                f"{field_of(param)}: {str(value)[:80]!r} is not a variable",
                hint="write e.g. LANG=C",
            )
        return key, text


class Mode(click.ParamType[int]):
    """Permissions in octal, e.g. 0644."""

    name = "mode"

    def convert(self, value: object, param: click.Parameter | None, ctx: object) -> int:
        del ctx
        text = str(value)
        if not (text.isascii() and text.isdigit() and 0 < len(text) <= 5 and max(text) < "8"):
            raise InvalidInput(
                f"{field_of(param)}: {text[:80]!r} is no mode", hint="write it in octal, e.g. 0644"
            )
        if int(text, 8) > 0o7777:
            raise InvalidInput(f"{field_of(param)}: {text} is beyond 7777", hint="write e.g. 0644")
        return int(text, 8)


def field_of(param: click.Parameter | None) -> str:
    return (param.name if param is not None else None) or "value"


def _positive(amount: int, value: object, param: click.Parameter | None) -> int:
    if amount <= 0:
        raise InvalidInput(
            f"{field_of(param)}: {value} is nothing", hint="ask for more than 0, or leave it out"
        )
    return amount


def where_options() -> list[click.Parameter]:
    """--context, --endpoint and --project: on the root, and (hidden) on every command."""
    return [
        _where(["--context"], "context_name", "Context of contexts.toml (else VECTL_CONTEXT)."),
        _where(["--endpoint"], "endpoint", "Controllers, host:port or unix:/path, with commas."),
        _where(["-p", "--project"], "project", "Project that is meant (else the context's)."),
    ]


def _where(names: list[str], field: str, text: str) -> click.Option:
    def keep(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        del param
        if value is not None:
            setattr(ctx.ensure_object(Session), field, value)

    return click.Option([*names, field], help=text, expose_value=False, callback=keep)


class Command(click.Command):
    """A command that also takes the root's options behind its name."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # handed through as they come
        for option in where_options():
            assert isinstance(option, click.Option)
            option.hidden = True
            self.params.append(option)


def command(name: str) -> Callable[[Callable[..., object]], click.Command]:
    """A vectl command of that name."""
    return click.command(name, cls=Command)


def output_option(*, wide: bool = True) -> Callable[[F], F]:
    formats = FORMATS if wide else tuple(name for name in FORMATS if name != "wide")
    return click.option(
        "-o",
        "--output",
        "style",
        type=click.Choice(formats),
        default="table",
        help="Form of the output.",
    )


def no_headers_option(function: F) -> F:
    return click.option("--no-headers", is_flag=True, help="No line of titles.")(function)


def all_projects_option(function: F) -> F:
    return click.option("-A", "--all-projects", is_flag=True, help="Of every project.")(function)


def timeout_option(default_s: float = DEFAULT_TIMEOUT_S) -> Callable[[F], F]:
    return click.option(
        "--timeout",
        "timeout_s",
        type=Duration(),
        default=default_s,
        help=f"How long to wait until it is done.  [default: {default_s:g}s]",
    )


def detach_option(function: F) -> F:
    return click.option("--detach", is_flag=True, help="Don't wait until it is done.")(function)


def yes_option(function: F) -> F:
    return click.option("--yes", is_flag=True, help="Don't ask.")(function)


def complete_ve(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of VEs that begin like that; none when the controller does not answer at once."""
    del param

    async def names(client: "Client") -> list[str]:
        ves, _ = await client.list_ves()
        return [ve.name for ve in ves]

    return complete(ctx, names, incomplete)


def complete_ve_path(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of VEs with the colon that a path follows; paths themselves are not known here."""
    if ":" in incomplete or incomplete.startswith(("/", ".")):
        return []
    return [CompletionItem(f"{item.value}:") for item in complete_ve(ctx, param, incomplete)]


def complete_image(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Tags of images that begin like that."""
    del param

    async def names(client: "Client") -> list[str]:
        return [tag for image in await client.images() for tag in image.tags]

    return complete(ctx, names, incomplete)


def complete_host(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of hosts that begin like that."""
    del param

    async def names(client: "Client") -> list[str]:
        return [host.name for host in await client.hosts()]

    return complete(ctx, names, incomplete)


def complete(
    ctx: click.Context,
    names: Callable[["Client"], Awaitable[list[str]]],
    incomplete: str,
) -> list[CompletionItem]:
    try:
        found = ctx.ensure_object(Session).run(names, limit_s=_COMPLETION_LIMIT_S)
    except Exception:  # noqa: BLE001  # a prompt is no place for errors
        return []
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def name_argument(function: F) -> F:
    return click.argument("name", shell_complete=complete_ve)(function)


def names_argument(function: F) -> F:
    return click.argument("names", nargs=-1, required=True, shell_complete=complete_ve)(function)
