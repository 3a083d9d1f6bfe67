"""The program `vefence`: reads the agent's configuration once, and minds the host until SIGTERM.

A second one on the same folder is refused: each would take the other's beat for its own.
"""

import argparse
import fcntl
import gc
import os
import signal
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from vefence import host
from vefence.groups import Groups
from vefence.loop import Fence, Kernel, Settings

_CONFIG = Path("/etc/verack/agent.toml")
_USAGE = 2


class Wrong(Exception):
    """What can't work, in words for people."""


def settings_of(path: Path) -> Settings:
    """Of the agent's configuration: the agent checks all else of it."""
    try:
        config = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Wrong(f"can't read {path}: {error}") from None
    fence, name = config.get("fence", {}), config.get("host")
    if not isinstance(fence, dict) or not isinstance(name, str):
        raise Wrong(f"{path}: host is missing, or fence is no table")
    folder = fence.get("folder", f"/run/verack/{name}/fence")
    watchdog, reboots = fence.get("watchdog", ""), fence.get("reboot", False)
    if not (isinstance(folder, str) and isinstance(watchdog, str) and isinstance(reboots, bool)):
        raise Wrong(f"{path}: [fence]: folder and watchdog are paths, reboot is true or false")
    return Settings(
        folder=Path(folder), watchdog=Path(watchdog) if watchdog else None, reboot=reboots
    )


def _only_one(folder: Path) -> None:
    """Holds a lock until the process ends."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Wrong(f"another vefence works on {folder}; stop it first") from None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="vefence", description="Kills what may not outlive this host's lease."
    )
    parser.add_argument("--config", type=Path, default=_CONFIG, help="the agent's (%(default)s)")
    try:
        _serve(settings_of(parser.parse_args(arguments).config))
    except (Wrong, OSError) as error:
        sys.stderr.write(f"vefence: {error}\n")
        sys.exit(_USAGE if isinstance(error, Wrong) else 1)


def _serve(settings: Settings) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _only_one(settings.folder)
    fence = Fence(settings, Kernel(Groups()))
    gc.freeze()
    host.harden()
    host.say("begun", folder=settings.folder, pid=os.getpid())
    fence.run(lambda: bool(stopped))
    host.say("ended")
