"""A small root file system from this machine's static busybox, for VEs in tests."""

import functools
import shutil
import subprocess
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
FOLDERS = ("etc/init.d", "proc", "sys", "dev", "run", "var/log", "root", "tmp")
INITTAB = """\
::sysinit:/etc/init.d/rcS
::shutdown:/bin/sync
"""
RC = """\
#!/bin/sh
echo "$(hostname): up"
"""


@functools.cache
def _applets() -> tuple[str, ...]:
    """Paths of busybox's applets, as `sbin/init`."""
    listed = subprocess.run([BUSYBOX, "--list-full"], check=True, capture_output=True, text=True)
    return tuple(listed.stdout.split())


def make_busybox_root(dir: Path) -> None:  # noqa: A002
    """Fills `dir` (made when missing): busybox with all applets, its init, and a line on the console at boot.

    It runs no getty and no other program: once up, its init is the only process.
    """
    for folder in FOLDERS:
        (dir / folder).mkdir(parents=True, exist_ok=True)
    for applet in ("bin/busybox", *_applets()):
        path = dir / applet
        path.parent.mkdir(parents=True, exist_ok=True)
        if applet != "bin/busybox":
            path.symlink_to("/bin/busybox")
        else:
            shutil.copy2(BUSYBOX, path)
    _write(dir / "etc/inittab", INITTAB, mode=0o644)
    _write(dir / "etc/init.d/rcS", RC, mode=0o755)
    _write(dir / "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", mode=0o644)
    _write(dir / "etc/group", "root:x:0:\n", mode=0o644)
    (dir / "tmp").chmod(0o1777)
    (dir / "root").chmod(0o700)


def _write(path: Path, text: str, *, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)
