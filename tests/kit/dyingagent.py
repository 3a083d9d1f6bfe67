"""A real agent that kills itself at a chosen call of its ports: `VERACK_TEST_DEATH` is `NUMBER:before` or `NUMBER:after`.

Run as `python -c "from kit.dyingagent import main; main()" --config …`. The names of the calls go to the file
`VERACK_TEST_CALLS`, one a line, each before it is made.
"""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from kit.mortal import Deathbed
from veagent import app, hostparts
from veagent import main as program
from veagent.config import Config
from veagent.hostparts import HostParts
from veapi.clock import Clock

DEATH = "VERACK_TEST_DEATH"
CALLS = "VERACK_TEST_CALLS"


class _Diary(list[str]):
    """Calls, on disk before they are made."""

    def append(self, name: str) -> None:
        super().append(name)
        with Path(os.environ[CALLS]).open("a") as calls:
            calls.write(f"{name}\n")


async def _die(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.get_running_loop().create_future()


async def _open_mortal(config: Config, clock: Clock, stack: AsyncExitStack) -> HostParts:
    number, _, when = os.environ[DEATH].partition(":")
    bed = Deathbed({int(number)}, after=when == "after", die=_die)
    bed.calls = _Diary()
    parts = await hostparts.open_parts(config, clock, stack)
    return replace(
        parts,
        runtime=bed.mortal(parts.runtime),
        roots=bed.mortal(parts.roots),
        network=bed.mortal(parts.network),
    )


def main() -> None:
    setattr(app, "open_parts", _open_mortal)  # noqa: B010 - the composition root's, not its own
    program.main()
