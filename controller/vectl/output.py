"""What commands print on stdout: tables, JSON, YAML or names.

One object is its proto3 JSON with the proto's field names; many are `{"items": [...]}`.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import click

from veapi.clock import SystemClock
from vectl.table import Column, Writer

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

M = TypeVar("M", bound="Message")
Style = Literal["table", "wide", "json", "yaml", "name"]


def colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class Printer(Generic[M]):
    """Prints objects of one kind in one form. `prefix` begins a name, e.g. `ve/`."""

    def __init__(
        self,
        style: Style,
        columns: Sequence[Column[M]],
        *,
        prefix: str,
        headers: bool = True,
    ) -> None:
        self.style = style
        self._prefix = prefix
        self._headers = headers
        self._writer = Writer(columns, wide=style == "wide", colour=colours())

    def many(self, items: Sequence[M], names: Sequence[str]) -> None:
        """All at once. `names` are those of the items, in their order."""
        match self.style:
            case "json" | "yaml":
                _structured({"items": [as_dict(item) for item in items]}, self.style)
            case "name":
                for name in names:
                    click.echo(self._prefix + name)
            case _:
                for line in self._writer.lines(items, titles=self._headers):
                    click.echo(line)

    def later(self, item: M, name: str, change: str = "") -> None:
        """One that came by a watch: a line of the table, or a document of its own (JSON: on one line)."""
        document = as_dict(item) if self.style in ("json", "yaml") else {}
        if change:
            document = {"change": change, self._prefix.rstrip("/"): document}
        match self.style:
            case "json":
                click.echo(json.dumps(document))
            case "yaml":
                click.echo("---")
                _structured(document, "yaml")
            case "name":
                click.echo(self._prefix + name)
            case _:
                for line in self._writer.lines([item], titles=False):
                    click.echo(line)
        sys.stdout.flush()


def one(item: "Message", style: Style) -> None:
    """One object as JSON or YAML."""
    _structured(as_dict(item), style)


def as_dict(message: "Message") -> dict[str, object]:
    """Proto3 JSON with the proto's field names; 64-bit numbers are texts in it."""
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415  # 15 ms

    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _structured(value: dict[str, object], style: Style) -> None:
    if style == "yaml":
        import yaml  # noqa: PLC0415  # 15 ms

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(value, indent=2))


def age(stamp: "Timestamp", *, now: float | None = None) -> str:
    """`12s`, `5m`, `3h`, `2d` since then; empty when it is not set."""
    if not stamp.seconds:
        return ""
    seconds = max(0, int((SystemClock().wall() if now is None else now) - stamp.seconds))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def moment(stamp: "Timestamp") -> str:
    """Local time for people, with its offset."""
    if not stamp.seconds:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(stamp.seconds))
