"""Commands of the rack script: plain subprocesses with a limit, and an error that shows what was run."""

import shlex
import subprocess
from collections.abc import Mapping, Sequence


class CommandFailed(Exception):
    """What was run, and its last words."""


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    text_in: str | None = None,
    timeout_s: float = 60,
    env: Mapping[str, str] | None = None,
) -> str:
    """The program's output; CommandFailed when it fails (and `check`) or is late."""
    try:
        done = subprocess.run(
            argv,
            input=text_in,
            stdin=subprocess.DEVNULL if text_in is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"`{shlex.join(argv)}` did not end within {timeout_s:g} s") from None
    except FileNotFoundError:
        raise CommandFailed(f"`{argv[0]}` is not installed; `make setup` installs it") from None
    if check and done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-1000:]
        raise CommandFailed(f"`{shlex.join(argv)}` failed ({done.returncode}): {words}")
    return done.stdout
