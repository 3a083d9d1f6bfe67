"""Runs `tar` on a hostile archive where it can do no harm. A program of its own: `python -I -S sandbox.py JOB`.

Checking names before unpacking has been got round again and again (Python's `tarfile` filters, CVE-2025-4517), so
nothing is checked here: the kernel confines what runs instead.

    helper (root)   hashes and forwards the stream; the only one that sees the host
     └ gate         new user, mount, pid, net, ipc, uts and cgroup namespaces; builds the small root, drops all it can
        └ init      pid 1 of the sandbox: when it dies, all in it dies
           ├ unpacker   gzip, xz or zstd: blob → helper; no capability, not even root of the sandbox
           └ tar        helper → target

In the sandbox's root there are /usr, /bin and /lib* read-only, and `target`: the staging subvolume through an
idmapped mount, so that ids on disk are those of the tar while the programs run as a range of ids that owns nothing
else on this host. Device nodes can't be made in a user namespace.

It forks, which the agent itself never does: here are no threads yet. Only the standard library is imported.
"""

# pathlib would double the start of this small program.
# ruff: noqa: PTH102, PTH112, PTH114, PTH115, PTH123, PTH211

import contextlib
import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from typing import NoReturn

BLOCK_BYTES = 512
_IDS = 65_536
_PIECE_BYTES = 1 << 20
_WORDS_BYTES = 4096
_NOBODY = 65_534
_PROCESSES = 16
_MEMORY_BYTES = 2 << 30
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_STAGE = "/tmp"  # noqa: S108 - a mount point in the sandbox's own mount namespace

_NAMESPACES = (
    0x00020000  # mount
    | 0x02000000  # cgroup
    | 0x04000000  # uts
    | 0x08000000  # ipc
    | 0x10000000  # user
    | 0x20000000  # pid
    | 0x40000000  # net
)
_MS_REC, _MS_PRIVATE, _MS_BIND, _MS_NOSUID, _MS_NODEV = 0x4000, 0x40000, 0x1000, 2, 4
_MNT_DETACH = 2
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC, _ATTR_IDMAP = 1, 2, 4, 8, 0x100000
_SYS_PIVOT_ROOT, _SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 155, 428, 429, 442
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
# chown, dac_override, fowner, fsetid, setfcap: what tar needs to write files of others.
_TAR_CAPABILITIES = frozenset({0, 1, 3, 4, 31})
_LAST_CAPABILITY = 40

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Job:
    """`tar` and `unpacker` are argument lists with absolute programs; without an unpacker the blob is the tar."""

    blob: str
    target: str
    tar: list[str]
    unpacker: list[str]
    id_base: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """`head`: the tar's first bytes in hex; `words`: the last that the programs said; codes as of a shell."""

    sha256: str
    tar_bytes: int
    too_large: bool
    head: str
    unpacker_code: int
    tar_code: int
    words: str


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def encode(job: Job) -> str:
    return json.dumps(asdict(job))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *args: object) -> int:
    return _checked(int(_libc.syscall(ctypes.c_long(number), *args)), what)


def _open_tree(path: str) -> int:
    """A detached copy of what is mounted there."""
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC)
    return _syscall("open_tree", _SYS_OPEN_TREE, ctypes.c_int(_AT_FDCWD), path.encode(), flags)


def _move_mount(tree: int, place: str) -> None:
    _syscall(
        *("move_mount", _SYS_MOVE_MOUNT, ctypes.c_int(tree), b"", ctypes.c_int(_AT_FDCWD)),
        *(place.encode(), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)),
    )


def _set_mount(fd: int, path: str, attributes: int, *, how: int, userns_fd: int = 0) -> None:
    attr = _MountAttr(attr_set=attributes, userns_fd=userns_fd)
    _syscall(
        *("mount_setattr", _SYS_MOUNT_SETATTR, ctypes.c_int(fd), path.encode()),
        *(ctypes.c_uint(how), ctypes.byref(attr), ctypes.c_size_t(ctypes.sizeof(attr))),
    )


def _mount(source: str, place: str, kind: str, flags: int, data: str = "") -> None:
    args = (source.encode(), place.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _checked(int(_libc.mount(*args)), f"mount {place}")


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _checked(int(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero)), "prctl")


class _Pipes:
    """What joins helper and sandbox; every end is closed at exec."""

    def __init__(self) -> None:
        self.ready = os.pipe()
        self.go = os.pipe()
        self.plain = os.pipe()
        self.tar = os.pipe()
        self.words = os.pipe()
        self.codes = os.pipe()

    def keep(self, *wanted: int) -> None:
        """Closes all other ends, so that each reader sees its writer's end."""
        for pair in (self.ready, self.go, self.plain, self.tar, self.words, self.codes):
            for fd in pair:
                if fd not in wanted:
                    with contextlib.suppress(OSError):
                        os.close(fd)


# --- in the sandbox ---------------------------------------------------------------------------------------------------


def _gate(job: Job, pipes: _Pipes, blob: int, tree: int, parent: int) -> NoReturn:
    """Enters the namespaces, waits until the helper has mapped ids and mount, then closes every door behind it."""
    _checked(int(_libc.unshare(_NAMESPACES)), "unshare")
    os.write(pipes.ready[1], b"r")
    os.close(pipes.go[1])
    if os.read(pipes.go[0], 1) != b"g":
        os._exit(1)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before we asked to hear of it
    _build_root(tree)
    _limit(job)
    init = os.fork()
    if init == 0:
        _init(job, pipes, blob)
    pipes.keep()
    _, status = os.waitpid(init, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _build_root(tree: int) -> None:
    _mount("", "/", "", _MS_REC | _MS_PRIVATE)
    links = {name: os.readlink(f"/{name}") for name in _PROGRAMS if os.path.islink(f"/{name}")}
    _mount("sandbox", _STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    for name in _PROGRAMS:
        if name in links:
            os.symlink(links[name], f"{_STAGE}/{name}")
        elif os.path.isdir(f"/{name}"):
            _bind_read_only(f"/{name}", f"{_STAGE}/{name}")
    os.mkdir(f"{_STAGE}/target")
    _move_mount(tree, f"{_STAGE}/target")
    os.close(tree)
    os.chdir(_STAGE)
    _syscall("pivot_root", _SYS_PIVOT_ROOT, b".", b".")
    _checked(int(_libc.umount2(b".", _MNT_DETACH)), "umount")
    _set_mount(_AT_FDCWD, "/", _ATTR_RDONLY, how=0)
    os.chdir("/target")


def _bind_read_only(source: str, place: str) -> None:
    os.mkdir(place)
    _mount(source, place, "", _MS_BIND | _MS_REC)
    _set_mount(_AT_FDCWD, place, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, how=_AT_RECURSIVE)


def _limit(job: Job) -> None:
    limits = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, job.most_bytes),
        (resource.RLIMIT_NPROC, _PROCESSES),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
    )
    for what, most in limits:
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))
    os.umask(0o022)  # for folders that the tar only implies; what it names gets its own mode
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _init(job: Job, pipes: _Pipes, blob: int) -> NoReturn:
    """Starts both programs, waits for both, says how they ended."""
    unpacker = os.fork() if job.unpacker else 0
    if job.unpacker and unpacker == 0:
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        _become(job.unpacker, stdin=blob, stdout=pipes.plain[1], stderr=pipes.words[1])
    tar = os.fork()
    if tar == 0:
        _drop_capabilities()
        _become(job.tar, stdin=pipes.tar[0], stdout=pipes.words[1], stderr=pipes.words[1])
    pipes.keep(pipes.codes[1])
    codes = {pid: _code(os.waitpid(pid, 0)[1]) for pid in (unpacker, tar) if pid}
    os.write(pipes.codes[1], json.dumps([codes.get(unpacker, 0), codes[tar]]).encode())
    os._exit(0)


def _drop_capabilities() -> None:
    """Out of the bounding set, so that exec as root of the sandbox does not give them back."""
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in _TAR_CAPABILITIES:
            with contextlib.suppress(OSError):  # an older kernel has fewer
                _prctl(_PR_CAPBSET_DROP, capability)


def _become(argv: list[str], *, stdin: int, stdout: int, stderr: int) -> NoReturn:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for fd, number in ((stdin, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, number)
    os.execve(argv[0], argv, {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})  # noqa: S606


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


# --- the helper -------------------------------------------------------------------------------------------------------


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    blob = os.open(job.blob, os.O_RDONLY | os.O_CLOEXEC)
    tree = _open_tree(job.target)
    pipes = _Pipes()
    helper = os.getpid()
    gate = os.fork()
    if gate == 0:
        _guarded_gate(job, pipes, blob, tree, helper)
    _let_in(job, pipes, gate, tree)
    print(json.dumps(asdict(_forward(job, pipes, blob, gate))))  # noqa: T201


def _guarded_gate(job: Job, pipes: _Pipes, blob: int, tree: int, parent: int) -> NoReturn:
    try:
        _gate(job, pipes, blob, tree, parent)
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process must not run on as the helper
        os.write(2, f"sandbox: {error}\n".encode())
        os._exit(1)


def _let_in(job: Job, pipes: _Pipes, gate: int, tree: int) -> None:
    """Maps the gate's ids, and the target's mount onto them."""
    os.close(pipes.ready[1])
    if os.read(pipes.ready[0], 1) != b"r":
        sys.exit(1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{gate}/{name}", "w", encoding="ascii") as file:
            file.write(f"0 {job.id_base} {_IDS}\n")
    userns = os.open(f"/proc/{gate}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    attributes = _ATTR_IDMAP | _ATTR_NOSUID | _ATTR_NODEV | _ATTR_NOEXEC
    _set_mount(tree, "", attributes, how=_AT_EMPTY_PATH, userns_fd=userns)
    os.close(userns)
    os.close(tree)
    os.write(pipes.go[1], b"g")


def _forward(job: Job, pipes: _Pipes, blob: int, gate: int) -> Outcome:
    pipes.keep(pipes.plain[0], pipes.tar[1], pipes.words[0], pipes.codes[0])
    words = _Words(pipes.words[0])
    stream = _Stream(job.most_bytes)
    stream.copy(pipes.plain[0] if job.unpacker else blob, pipes.tar[1])
    if stream.too_large:
        os.kill(gate, signal.SIGKILL)
    os.close(pipes.plain[0])
    codes = _read_codes(pipes, stream)
    os.waitpid(gate, 0)
    return Outcome(
        sha256=stream.hash.hexdigest(),
        tar_bytes=stream.size,
        too_large=stream.too_large,
        head=stream.head.hex(),
        unpacker_code=codes[0],
        tar_code=codes[1],
        words=words.last(),
    )


def _read_codes(pipes: _Pipes, stream: "_Stream") -> list[int]:
    """Codes of unpacker and tar; without any it is the sandbox that failed, and so does the helper."""
    raw = os.read(pipes.codes[0], BLOCK_BYTES)
    if not raw and not stream.too_large:
        sys.exit("sandbox: it ended before its programs did")
    return list(json.loads(raw or b"[0, 0]"))


class _Stream:
    """Copies, counts and hashes."""

    def __init__(self, most_bytes: int) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self.head = b""
        self.too_large = False
        self._most = most_bytes

    def copy(self, source: int, sink: int) -> None:
        """To the end, also when the reader has gone: the digest is of all. Closes `sink`."""
        open_ = True
        while piece := os.read(source, _PIECE_BYTES):
            self.size += len(piece)
            if self.size > self._most:
                self.too_large = True
                break
            self.hash.update(piece)
            if len(self.head) < BLOCK_BYTES:
                self.head = (self.head + piece)[:BLOCK_BYTES]
            open_ = open_ and _write_all(sink, piece)
        os.close(sink)


def _write_all(sink: int, piece: bytes) -> bool:
    """False when the reader has gone."""
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(sink, view) :]
    except BrokenPipeError:
        return False
    return True


class _Words:
    """Keeps the last of what the programs say, so that they never block on it and it never grows."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._tail = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while piece := os.read(self._fd, _WORDS_BYTES):
            self._tail = (self._tail + piece)[-_WORDS_BYTES:]

    def last(self) -> str:
        self._thread.join()
        return self._tail.decode(errors="replace")


if __name__ == "__main__":
    main()
