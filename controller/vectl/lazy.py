"""Command groups that import a command only when it is run, and that know what a mistyped one meant.

`vectl --help` and completion list names from a table, so they need no import at all.
"""

import importlib
from collections.abc import Mapping
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from veapi.errors import InvalidInput


class Entry(NamedTuple):
    """A command: `module:attribute` and the line that help shows."""

    target: str
    help: str


class LazyGroup(click.Group):
    """A group over a table of entries; aliases work and are not listed. `fallback`: the entry meant by any other word."""

    def __init__(
        self,
        name: str,
        *,
        entries: Mapping[str, Entry],
        aliases: Mapping[str, str],
        help: str,  # noqa: A002  # click's name
        fallback: str = "",
        params: list[click.Parameter] | None = None,
    ) -> None:
        super().__init__(name, help=help, params=params or [])
        self.entries = entries
        self.aliases = aliases
        self.fallback = fallback

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        entry = self.entries.get(self.aliases.get(cmd_name, cmd_name))
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.fallback and self.get_command(ctx, word) is None and word[:1] != "-":
            return super().resolve_command(ctx, [self.fallback, *args])
        if self.get_command(ctx, word) is None and not ctx.resilient_parsing and word[:1] != "-":
            raise self._unknown(ctx, word)
        return super().resolve_command(ctx, args)

    def _unknown(self, ctx: click.Context, word: str) -> InvalidInput:
        near = nearest(word, [*self.entries, *self.aliases])
        hint = f"did you mean {near}? " if near else ""
        return InvalidInput(
            f"no such command: {ctx.command_path} {word}",
            hint=f"{hint}`{ctx.command_path} --help` lists them",
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.entries.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=entry.help)
            for name, entry in self.entries.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def nearest(word: str, known: list[str]) -> str:
    """The known word that was probably meant, or an empty one."""
    import difflib  # noqa: PLC0415  # only after a mistake

    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return found[0] if found else ""
