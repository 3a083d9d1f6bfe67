"""Mounts files of lxcfs into VEs: rebind.py LXCFS PID:MOUNT_NAMESPACE:FILE,FILE… …

A program of its own, because a process with threads can't change its mount namespace. It is run by path, with `-I`, and
imports nothing of ours. The number of the mount namespace guards against a pid that is somebody else's by now.
"""

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000
OPEN_TREE_CLONE = 1
AT_FDCWD = -100
MOVE_MOUNT_F_EMPTY_PATH = 4
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429

libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _clone(path: str) -> int:
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC
    return _checked(
        libc.syscall(SYS_OPEN_TREE, AT_FDCWD, path.encode(), flags), f"open_tree {path}"
    )


def _enter(namespace: int) -> None:
    _checked(libc.setns(namespace, CLONE_NEWNS), "setns")


def _mount(tree: int, target: str) -> None:
    libc.umount2(target.encode(), MNT_DETACH | UMOUNT_NOFOLLOW)
    flags = MOVE_MOUNT_F_EMPTY_PATH
    done = libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), flags)
    _checked(done, f"move_mount {target}")


def _rebind(lxcfs: str, home: int, word: str) -> None:
    pid, inode, files = word.split(":", 2)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(namespace).st_ino != int(inode):
            return
        trees = {name: _clone(f"{lxcfs}/{name}") for name in files.split(",")}
        _enter(namespace)
        try:
            for name, tree in trees.items():
                _mount(tree, f"/{name}")
                os.close(tree)
        finally:
            _enter(home)
    finally:
        os.close(namespace)


def main(arguments: list[str]) -> int:
    """Exit code 1, with lines on stderr, when some VE could not be served; the others are."""
    lxcfs, *words = arguments
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    failed = 0
    for word in words:
        try:
            _rebind(lxcfs, home, word)
        except OSError as error:
            failed = 1
            sys.stderr.write(f"{word.split(':', 1)[0]}: {error.strerror or error}\n")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
