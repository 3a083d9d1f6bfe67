"""The one way to run a program: an argument list, a limit on time and output, and a line that can be pasted in a shell."""

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from veapi.errors import RemoteFailed, TimedOut

log = structlog.get_logger()
OUTPUT_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Finished:
    code: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float = 30.0,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Finished:
    """Runs `argv` to its end. RemoteFailed with its last words when `check` and it fails; TimedOut (killed) when late."""
    log.debug("run", command=shlex.join(argv))
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env) if env is not None else None,
    )
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise TimedOut(
            f"{argv[0]} did not end within {timeout_s:g} s", hint=shlex.join(argv)
        ) from None
    except asyncio.CancelledError:
        process.kill()
        raise
    finished = Finished(
        process.returncode or 0, stdout[-OUTPUT_LIMIT_BYTES:], stderr[-OUTPUT_LIMIT_BYTES:]
    )
    if check and finished.code != 0:
        words = (finished.stderr or finished.stdout).decode(errors="replace").strip()[-500:]
        log.warning("command failed", command=shlex.join(argv), code=finished.code, words=words)
        raise RemoteFailed(
            f"{argv[0]} failed ({finished.code}): {words}",
            hint=f"the command was: {shlex.join(argv)}",
        )
    return finished
