"""Whether an unpacked tree can be the root of a VE, and is no trap for those who prepare it on the host.

Programs on the host mount below /dev, /proc, /sys, /etc and /run of a root: as symlinks they would lead them
elsewhere (the class of CVE-2026-47766), so they must be plain folders.
"""

import os
import posixpath
import stat
from pathlib import Path

from veagent.storage import beneath
from veagent.storage.failure import doing
from veapi.errors import InvalidInput

_PLAIN = ("dev", "proc", "sys", "etc", "run")
_MADE = ("dev", "proc", "sys", "run", "etc")
_LINKS_ALLOWED = (
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "usr",
    "var",
    "home",
    "root",
    "tmp",
)
_INIT = "sbin/init"
_ARCHIVES = {
    "manifest.json": "`docker save` archive",
    "oci-layout": "OCI layout",
    "rootfs": "bundle with the root in a folder `rootfs`",
    "rootfs.squashfs": "LXD or Incus image",
}


def check(root: Path, *, init: bool = True) -> None:
    """InvalidInput when it is no root of a VE. Makes the mount points that are missing. `init`: it needs /sbin/init."""
    with doing("checking the image"), beneath.opened_root(root) as fd:
        _check_folders(fd)
        _check_links(fd)
        if init:
            _check_init(fd)
        for name in _MADE:
            if _lstat(fd, name) is None:
                os.mkdir(name, 0o755, dir_fd=fd)


def _lstat(fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _check_folders(fd: int) -> None:
    for name in _PLAIN:
        found = _lstat(fd, name)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise InvalidInput(
                f"the image has {beneath.kind(found)} where the folder /{name} must be",
                hint=f"make /{name} a plain folder in the image's tree and pack it again",
            )


def _check_links(fd: int) -> None:
    for name in _LINKS_ALLOWED:
        found = _lstat(fd, name)
        if found is None or not stat.S_ISLNK(found.st_mode):
            continue
        target = os.readlink(name, dir_fd=fd)
        if escapes(target):
            raise InvalidInput(
                f"the image's /{name} is a symlink that leads out of it: {target[:200]!r}",
                hint=f"make /{name} a folder, or a symlink within the image",
            )


def escapes(target: str) -> bool:
    """Whether a symlink in the root's top folder climbs above it by its own words."""
    inside = posixpath.normpath(target.lstrip("/") or ".")
    return inside == ".." or inside.startswith("../")


def _check_init(fd: int) -> None:
    found = beneath.look(fd, _INIT)
    if found is not None and stat.S_ISREG(found.st_mode) and found.st_mode & 0o111:
        return
    names = os.listdir(fd)
    if found is not None:
        raise InvalidInput(
            "the image's /sbin/init is no executable file", hint="chmod 755 it and pack again"
        )
    if "init" in names:
        raise InvalidInput(
            "the image has no /sbin/init, only /init",
            hint="make /sbin/init a symlink to /init in the image's tree and pack it again",
        )
    for name, kind in _ARCHIVES.items():
        if name in names:
            raise InvalidInput(
                f"the image has no /sbin/init: it looks like a {kind}",
                hint="a root tarball is needed, as of `docker export` or `tar -C ROOT -c .`",
            )
    raise InvalidInput(
        f"the image has no /sbin/init; at its top are {', '.join(sorted(names)[:8]) or 'no files'}",
        hint="pack the root itself, not the folder that holds it: tar -C ROOT -c . | gzip > root.tar.gz",
    )
