"""Takes this process into a VE, to read and write its files with the rights of its root and no more.

Of a VE that runs: its user and mount namespaces, and its cgroup, so that what is read and written counts as its own. Not its
PID namespace: nothing in the VE can see the process, and the kernel lets nobody in there look into one that the host began.
Of a VE that does not run: new namespaces around its root, with the ids that it would have.

Afterwards its root is `/`: whatever a link in it says leads to a place in it.
"""

import ctypes
import os
import sys
from typing import NoReturn

_IDS = 65_536
_NEWUSER, _NEWNS, _NEWPID, _NEWNET, _NEWIPC, _NEWUTS, _NEWCGROUP = (
    *(0x10000000, 0x00020000, 0x20000000),
    *(0x40000000, 0x08000000, 0x04000000, 0x02000000),
)
_MS_REC, _MS_PRIVATE, _MS_BIND, _MS_NOSUID, _MS_NODEV = 0x4000, 0x40000, 0x1000, 2, 4
_MNT_DETACH = 2
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 1, 2, 4, 0x100000
_SYS_PIVOT_ROOT, _SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 155, 428, 429, 442
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SIGKILL = 9
_STAGE = "/tmp"  # noqa: S108 - a mount point in a mount namespace of our own
# chown, dac_override, fowner, fsetid
_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4
_CAPABILITY_VERSION = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def enter_running(pidfd: int, id_base: int, cgroups: list[str]) -> None:
    """`cgroups`: files to write our pid to. OSError when the VE has ended; PermissionError when it is not that VE."""
    for path in cgroups:
        with open(path, "wb", buffering=0) as file:  # noqa: PTH123 - quicker
            file.write(b"0")
    own = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # of the host's /proc
    _checked(_libc.setns(pidfd, _NEWUSER | _NEWNS), "setns")
    fd = os.open("uid_map", os.O_RDONLY | os.O_CLOEXEC, dir_fd=own)
    told = os.read(fd, 200).split()
    os.close(fd)
    os.close(own)
    if told != [b"0", b"%d" % id_base, b"%d" % _IDS]:
        raise PermissionError(1, "the VE's ids are not the expected ones")
    _become_root()


def enter_stopped(root: str, id_base: int, *, read_only: bool, tools: bool = False) -> None:
    """Returns in a child that is in; the process that called ends with the child's exit code.

    With `tools` its root is a small one with the host's programs, read-only, and the VE's root is /target in it.
    """
    tree = _open_tree(root)
    ready, go = os.pipe(), os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child:
        os.close(ready[1])
        _let_in(child, id_base, tree, (ready[0], go[1]), read_only=read_only)
        _end_as(child)
    os.close(go[1])
    _checked(_libc.unshare(_NEWUSER | _NEWNS | _NEWNET | _NEWIPC | _NEWUTS), "unshare")
    os.write(ready[1], b"r")
    if os.read(go[0], 1) != b"g":
        os._exit(1)
    os.close(ready[1])
    _become_root()
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    _build_root(tree, tools=tools)


def hide() -> None:
    """Before all: nobody who comes to share a namespace with us may look into this process."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def close_up() -> None:
    """After everything is open and mounted: no capability but those to write files, nothing more to import."""
    sys.meta_path.clear()
    hide()
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(_CAPABILITIES, _CAPABILITIES, 0, 0, 0, 0)
    _checked(_libc.capset(head, sets), "capset")


def _let_in(
    child: int, id_base: int, tree: int, pipes: tuple[int, int], *, read_only: bool
) -> None:
    if os.read(pipes[0], 1) != b"r":
        return
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(f"0 {id_base} {_IDS}\n")
    userns = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    attributes = _ATTR_IDMAP | _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if read_only else 0)
    attr = _MountAttr(attr_set=attributes, userns_fd=userns)
    _syscall(
        *("mount_setattr", _SYS_MOUNT_SETATTR, ctypes.c_int(tree), b""),
        *(ctypes.c_uint(_AT_EMPTY_PATH), ctypes.byref(attr), ctypes.c_size_t(ctypes.sizeof(attr))),
    )
    os.close(userns)
    os.close(tree)
    os.write(pipes[1], b"g")


def _end_as(child: int) -> NoReturn:
    for fd in (0, 1):
        os.close(fd)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _build_root(tree: int, *, tools: bool) -> None:
    _mount("", "/", "", _MS_REC | _MS_PRIVATE)
    links = {name: os.readlink(f"/{name}") for name in _PROGRAMS if os.path.islink(f"/{name}")}  # noqa: PTH114, PTH115
    _mount("stage", _STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=64k")
    for name in _PROGRAMS if tools else ():
        if name in links:
            os.symlink(links[name], f"{_STAGE}/{name}")  # noqa: PTH211
        elif os.path.isdir(f"/{name}"):  # noqa: PTH112
            _bind_read_only(f"/{name}", f"{_STAGE}/{name}")
    os.mkdir(f"{_STAGE}/target")  # noqa: PTH102
    _syscall(
        *("move_mount", _SYS_MOVE_MOUNT, ctypes.c_int(tree), b"", ctypes.c_int(_AT_FDCWD)),
        *(f"{_STAGE}/target".encode(), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)),
    )
    os.close(tree)
    os.chdir(_STAGE if tools else f"{_STAGE}/target")
    _syscall("pivot_root", _SYS_PIVOT_ROOT, b".", b".")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")


def _bind_read_only(source: str, place: str) -> None:
    os.mkdir(place)  # noqa: PTH102
    _mount(source, place, "", _MS_BIND | _MS_REC)
    attr = _MountAttr(attr_set=_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    _syscall(
        *("mount_setattr", _SYS_MOUNT_SETATTR, ctypes.c_int(_AT_FDCWD), place.encode()),
        *(ctypes.c_uint(_AT_RECURSIVE), ctypes.byref(attr), ctypes.c_size_t(ctypes.sizeof(attr))),
    )


def _become_root() -> None:
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _open_tree(path: str) -> int:
    flags = ctypes.c_uint(1 | os.O_CLOEXEC)
    return _syscall("open_tree", _SYS_OPEN_TREE, ctypes.c_int(_AT_FDCWD), os.fsencode(path), flags)


def _mount(source: str, place: str, kind: str, flags: int, data: str = "") -> None:
    args = (source.encode(), place.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _checked(_libc.mount(*args), f"mount {place}")


def _syscall(what: str, number: int, *args: object) -> int:
    return _checked(_libc.syscall(ctypes.c_long(number), *args), what)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return int(result)
