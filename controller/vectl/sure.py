"""Asks before what can't be taken back."""

import sys
from collections.abc import Sequence

import click

from veapi.errors import InvalidInput

_NAMED = 5


def sure(question: str, *, doing: str = "") -> None:
    """Ends vectl unless the answer is yes. InvalidInput, of what it is `doing`, where nobody can answer."""
    if not sys.stdin.isatty():
        what = f"{doing} without" if doing else "without"
        raise InvalidInput(
            f"not {what} being sure", hint="say --yes, there is no terminal to ask on"
        )
    click.confirm(question, abort=True, err=True)


def some(names: Sequence[str]) -> str:
    """The first five, and how many more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
