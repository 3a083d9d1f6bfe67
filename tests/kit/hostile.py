"""Archives that try to get out of where they are unpacked, or to grow beyond all bounds."""

import stat
import tarfile
from pathlib import Path

from kit.storage import Member, folder, link, pack

WHITEOUT = 0  # overlayfs's mark, which every user may make and which opens nothing


def escapes(outside: Path) -> dict[str, list[Member]]:
    """Archives that try to write `outside`/owned: by name, by links, by order, by PAX records."""
    return {**_names(outside), **_symlinks(outside), **_hardlinks(outside), **_odd()}


def _climbing(outside: Path) -> str:
    """The way there from any root."""
    return f"{'../' * 40}{outside.as_posix().lstrip('/')}"


def _names(outside: Path) -> dict[str, list[Member]]:
    deep = _climbing(outside)
    return {
        "dots": [Member(f"{deep}/owned", b"owned")],
        "absolute": [Member(f"{outside}/owned", b"owned")],
        "hidden-dots": [folder("a"), Member(f"a/./{deep}/owned", b"owned")],
    }


def _symlinks(outside: Path) -> dict[str, list[Member]]:
    deep, long = _climbing(outside), "d" * 200
    return {
        "symlink-then-write": [link("out", str(outside)), Member("out/owned", b"owned")],
        "relative-symlink-then-write": [link("out", deep), Member("out/owned", b"owned")],
        "symlink-to-symlink": [
            link("a", "b"),
            link("b", str(outside)),
            Member("a/owned", b"owned"),
        ],
        "symlink-replaced-folder": [
            folder("out"),
            link("out", str(outside)),
            Member("out/owned", b"owned"),
        ],
        "symlink-itself-written": [
            link("owned", f"{outside}/owned"),
            Member("owned", b"owned"),
        ],
        "long-path-confusion": [
            folder(long),
            link(f"{long}/up", "../" * 30 + str(outside).lstrip("/")),
            Member(f"{long}/up/owned", b"owned"),
        ],
        "host-programs": [
            link("u", "/usr"),
            Member("u/bin/owned", b"owned"),
            Member("x", b"owned"),
        ],
    }


def _hardlinks(outside: Path) -> dict[str, list[Member]]:
    deep = _climbing(outside)
    return {
        "hardlink-outside": [
            Member("hard", kind=tarfile.LNKTYPE, target=f"{outside}/victim"),
            Member("hard", b"owned"),
        ],
        "hardlink-dots": [
            Member("hard", kind=tarfile.LNKTYPE, target=f"{deep}/victim"),
            Member("hard", b"owned"),
        ],
        "hardlink-to-symlink": [
            link("sym", f"{outside}/victim"),
            Member("hard", kind=tarfile.LNKTYPE, target="sym"),
            Member("hard", b"owned"),
        ],
    }


def _odd() -> dict[str, list[Member]]:
    return {
        "newline-and-option": [Member("--to-command=touch owned\n", b"x"), Member("-C", b"x")],
        "case-and-dup": [Member("A", b"1"), Member("a", b"2"), Member("a", b"3")],
        "very-long-name": [Member("n/" * 2100 + "x", b"x")],
        "device": [Member("sd", kind=tarfile.BLKTYPE)],
        "character-device": [Member("etc/mem", kind=tarfile.CHRTYPE)],
    }


def is_device(path: Path) -> bool:
    mode = path.lstat().st_mode
    return (stat.S_ISBLK(mode) or stat.S_ISCHR(mode)) and path.lstat().st_rdev != WHITEOUT


def bomb(size_bytes: int, *packer: str) -> bytes:
    """A tar whose one file is zeros, in a few KB."""
    header = tarfile.TarInfo("zeros")
    header.size = size_bytes
    content = header.tobuf() + bytes(size_bytes) + bytes(1024)
    return pack(content, *(packer or ("gzip", "-1", "-c")))
