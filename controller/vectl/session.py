"""What every command is handed: the choice of context, and the way to run against the controller.

Nothing here imports grpc or asyncio before a command really talks to a controller.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import click

from vectl.context import Context, load

if TYPE_CHECKING:
    from vectl.client import Client

T = TypeVar("T")


class Interrupted(Exception):
    """Ctrl-C. `stands` says what goes on without us; empty when nothing was asked."""

    def __init__(self, stands: str) -> None:
        super().__init__(stands)
        self.stands = stands


class Ended(Exception):
    """The command has said everything; only its exit code is left."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(slots=True)
class Session:
    """One run of vectl. `stands` is set once a request is on its way."""

    context_name: str | None = None
    endpoint: str | None = None
    project: str | None = None
    stands: str = ""
    asked: dict[str, object] = field(default_factory=dict)
    """What options of a VE's spec were given, by the names of `vectl.wanted.Wanted`."""

    def context(self) -> Context:
        """The context that was chosen. InvalidInput when there is none."""
        return load(name=self.context_name, endpoint=self.endpoint, project=self.project)

    def run(self, work: Callable[["Client"], Awaitable[T]], *, limit_s: float | None = None) -> T:
        """Connects and runs `work`. Raises veapi.errors, Interrupted on Ctrl-C, TimeoutError after `limit_s`."""
        import asyncio  # noqa: PLC0415  # not for --help

        from vectl.client import Client  # noqa: PLC0415  # brings grpc

        context = self.context()

        async def connected() -> T:
            async with asyncio.timeout(limit_s), Client.connect(context) as client:
                return await work(client)

        try:
            return asyncio.run(connected())
        except KeyboardInterrupt:
            raise Interrupted(self.stands) from None


pass_session = click.make_pass_decorator(Session)
