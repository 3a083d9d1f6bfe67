"""What the LXC runtime needs of its host, looked at before anything is started."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from veagent.runtime.lxcconfig import SAFE_PATH
from veapi.errors import InvalidInput, NotFound, RemoteFailed
from veapi.process import run

_PACKAGES = {"lxc-start": "lxc", "setsid": "util-linux", "sh": "dash"}
_LEAST_VERSION = (5, 0)


def find_programs() -> dict[str, str]:
    """Paths by name; NotFound says which package brings the one that is missing."""
    return {name: _program(name) for name in _PACKAGES}


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotFound(
            f"program {name} is missing on this host", hint=f"apt-get install {_PACKAGES[name]}"
        )
    return path


async def check_version(lxc_start: str) -> None:
    """RemoteFailed when LXC is too old."""
    said = (await run([lxc_start, "--version"])).stdout.decode().strip()
    numbers = tuple(int(word) for word in re.findall(r"\d+", said)[:2])
    if numbers < _LEAST_VERSION:
        raise RemoteFailed(
            f"LXC {said} is too old", hint="verack needs LXC 5.0 or later (Debian 12 or later)"
        )


def check_paths(paths: Iterable[Path | None]) -> None:
    """InvalidInput when one can't be in a configuration."""
    for path in paths:
        if path is not None and not SAFE_PATH.fullmatch(str(path)):
            raise InvalidInput(
                f"path {str(path)!r} is not usable", hint="letters, digits and ._/@%+=- only"
            )


def make_passable(path: Path) -> None:
    """LXC lets VEs through only when every folder above may be passed by anybody; RemoteFailed names one that may not."""
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.chmod(0o711)
    for folder in path.parents:
        if not folder.stat().st_mode & 0o001:
            raise RemoteFailed(
                f"{folder} can't be passed by the users of VEs", hint=f"chmod o+x {folder}"
            )
