"""Who runs, told by the kernel: each VE's init locks a file of its own on a mount that all hosts share, for as long as it lives.

The product knows nothing of this. The hosts of a chaos rack find a program before the real lxc-start that adds the mount,
and their VEs' image has an init that takes the lock before it becomes busybox. A copy that finds it taken says TWICE
in the file, and waits for it.
"""

import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from shutil import rmtree, which
from tempfile import mkdtemp

_INIT = b"""\
#!/bin/sh
umask 0
exec 9>>"/chaos/$(hostname)" || exit 1
umask 022
/usr/bin/flock -n 9
case $? in 0) said=begin ;; 1) said=TWICE ;; *) exit 1 ;; esac
echo "$said on $CHAOS_HOST at $(date +%s)" >&9
/usr/bin/flock 9
exec /bin/busybox init
"""
_LXC_START = """\
#!/bin/sh
# {real} with a mount that only the VEs of a chaos rack have
[ "$1" = -P ] && [ "$3" = -n ] || exec {real} "$@"
path=$2 uid=$4
shift 4
host=${{path#*/verack/*/}}
exec {real} -P "$path" -n "$uid" -s "lxc.mount.entry={locks} chaos none bind,create=dir 0 0" \\
  -s "lxc.environment=CHAOS_HOST=${{host%%/*}}" "$@"
"""


@dataclass(frozen=True, slots=True)
class Oracle:
    """A folder with `locks` (a file for each VE, by hostname) and `bin` (what goes before the rack's PATH)."""

    folder: Path

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    def lines(self, name: str) -> list[str]:
        """Each start of the VE, the oldest first."""
        try:
            return (self.locks / name).read_text().splitlines()
        except FileNotFoundError:
            return []

    def starts(self) -> dict[str, int]:
        """How often each VE was started."""
        return {path.name: len(self.lines(path.name)) for path in self.locks.iterdir()}

    def twice(self) -> list[str]:
        """VEs of which two copies ran at once, with all their starts; each is a broken promise."""
        names = sorted(path.name for path in self.locks.iterdir())
        stories = {name: self.lines(name) for name in names}
        return [
            f"{name}: {'; '.join(lines)}"
            for name, lines in stories.items()
            if any(line.startswith("TWICE") for line in lines)
        ]

    def held(self) -> set[str]:
        """VEs of which something lives. Nothing is locked to find out, which a start could stumble over."""
        inodes = {path.stat().st_ino: path.name for path in self.locks.iterdir()}
        found = set()
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK":
                found.add(inodes.get(int(words[5].rpartition(":")[2]), ""))
        return found - {""}


@contextmanager
def oracle() -> Iterator[Oracle]:
    """Until the end, agents that this process starts give their VEs the mount."""
    made = Oracle(Path(mkdtemp(prefix="verack-chaos-")))
    path = os.environ["PATH"]
    try:
        made.folder.chmod(0o755)
        made.locks.mkdir()
        made.locks.chmod(0o777)
        _wrap(made)
        os.environ["PATH"] = f"{made.folder / 'bin'}:{path}"
        yield made
    finally:
        os.environ["PATH"] = path
        rmtree(made.folder, ignore_errors=True)


def _wrap(made: Oracle) -> None:
    real = which("lxc-start")
    assert real is not None, "apt-get install lxc"
    program = made.folder / "bin" / "lxc-start"
    program.parent.mkdir()
    program.write_text(_LXC_START.format(real=real, locks=made.locks))
    program.chmod(0o755)


def locking_image(plain: Path) -> Path:
    """That image, with an init that takes the lock, and flock with its libraries: busybox has none."""
    made = plain.with_name("chaos.tar")
    with tarfile.open(plain) as source, tarfile.open(made, "w") as target:
        for member in source:
            if member.name != "./sbin/init":
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
        init = tarfile.TarInfo("./sbin/init")
        init.size, init.mode = len(_INIT), 0o755
        target.addfile(init, BytesIO(_INIT))
        for path in _flock():
            target.add(path.resolve(), f".{path}")
    return made


def _flock() -> list[Path]:
    program = which("flock")
    assert program is not None, "apt-get install util-linux"
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    found = [Path(word) for word in told.stdout.split() if word.startswith("/")]
    return [Path("/usr/bin/flock"), *found]
