"""Network namespaces of a test's own: made, entered and removed, with all that was in them.

Names begin with `vtn` and the pid of the test run, so that runs do not meet and a later one can sweep what a killed one
left. Enter with `nsenter --net=`: `ip netns exec` would hide the cgroups.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

_FOLDER = Path("/run/netns")
_NAME = re.compile(r"vtn(\d+)-\w+")


def path(name: str) -> str:
    return f"{_FOLDER}/{name}"


def enter(name: str, argv: Sequence[str]) -> list[str]:
    """The argument list that runs `argv` in the namespace."""
    return ["nsenter", f"--net={path(name)}", *argv]


def run(name: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a program in the namespace; its words are in the assertion when it fails."""
    done = subprocess.run(
        enter(name, argv), check=False, capture_output=True, text=True, timeout=30
    )
    assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done


def ip(*argv: str) -> None:
    done = subprocess.run(["ip", *argv], check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"ip {' '.join(argv)}: {done.stderr}"


@contextmanager
def namespace(suffix: str) -> Iterator[str]:
    """A new one with `lo` up; gives its name."""
    name = f"vtn{os.getpid()}-{suffix}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)


@contextmanager
def namespaces(*suffixes: str) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(namespace(suffix)) for suffix in suffixes]


def cable(first: tuple[str, str], second: tuple[str, str]) -> None:
    """A veth between two (namespace, device), both up."""
    (here, device), (there, other) = first, second
    peer = ["peer", "name", other, "netns", there]
    ip("-n", here, "link", "add", device, "type", "veth", *peer)
    ip("-n", here, "link", "set", device, "up")
    ip("-n", there, "link", "set", other, "up")


def ours() -> set[str]:
    """Namespaces of this test run that exist."""
    return {each for each in _all() if each.startswith(f"vtn{os.getpid()}-")}


def sweep() -> None:
    """Removes what killed test runs left."""
    for name in _all():
        found = _NAME.fullmatch(name)
        if found and not Path(f"/proc/{found[1]}").exists():
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)


def _all() -> list[str]:
    return [each.name for each in _FOLDER.iterdir()] if _FOLDER.exists() else []
