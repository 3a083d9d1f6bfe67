"""Runs lxc-start, and turns what it says when it fails into something that a user can act on."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from veapi.errors import RemoteFailed, TimedOut

# Without a PATH LXC finds no newuidmap and, being root, writes the id maps itself: four programs less for each start.
ENVIRONMENT = {"PATH": "/nonexistent"}
_LOG_TAIL_BYTES = 65_536
_REASONS = 4
_REASON_CHARACTERS = 600
_LOG_LINE = re.compile(r"^\S+ \S+ \S+ ERROR\s+\S+ - \S+?:\S+?:\d+ - (.*)$")
_HINTS = (
    ('Failed to exec "/sbin/init"', "the image has no /sbin/init that can run on this host"),
    ("Failed to exec", "the command is not in the image, or can't run on this host"),
    ("bridge interface", "the host's network is not up; look at the agent's log"),
    (
        "Failed to create veth",
        "a network card of that name is left on the host; the next try removes it",
    ),
    ("Please grant it x access", "the VE's user must pass: chmod o+x that folder"),
    (
        "uid range",
        "the id range is not usable on this host; check [ids] in the agent's configuration",
    ),
    ("No space left", "the host's disk is full"),
)


async def lxc_start(
    program: str, lxc_path: Path, uid: str, *, timeout_s: float, command: Sequence[str] = ()
) -> int:
    """Its exit code; TimedOut (and lxc-start killed) when it takes longer. The VE may run whatever comes out.

    The monitor writes into the log how init ended, at level INFO. All else writes nothing there (see the configuration): each
    exec would add to it, for as long as the VE runs. `command`: what the VE runs as its init; empty: as its configuration says.
    """
    process = await asyncio.create_subprocess_exec(
        *(program, "-P", str(lxc_path), "-n", uid, "-d", "-s", "lxc.log.level=INFO"),
        *(["--", *command] if command else []),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd="/",
    )
    try:
        async with asyncio.timeout(timeout_s):
            return await process.wait()
    except TimeoutError:
        raise TimedOut(
            f"the VE did not start within {timeout_s:g} s", hint="the host may be overloaded"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()


def failure(log: Path, what: str) -> RemoteFailed:
    """An error that says what LXC wrote into its log, the causes first."""
    reasons = _reasons(log_tail(log))
    said = "; ".join(reasons)[:_REASON_CHARACTERS]
    hint = next((hint for sign, hint in _HINTS if sign in said), "")
    return RemoteFailed(
        f"{what}: {said}" if said else what,
        hint=hint or "look at the VE's console log and at the agent's log on its host",
    )


def log_tail(log: Path) -> str:
    """The end of the VE's log of LXC; "" when there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _reasons(text: str) -> list[str]:
    """Messages of the log's lines without where in LXC they come from, each once, the first few."""
    found = (match[1] for line in text.splitlines() if (match := _LOG_LINE.match(line)))
    return list(dict.fromkeys(found))[:_REASONS]
