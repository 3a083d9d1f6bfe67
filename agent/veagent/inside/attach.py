"""Runs a command inside a VE through liblxc, as a user of the VE and in a folder of it.

`lxc-attach` can neither name a user, nor give it its groups, nor choose a folder. So the same call of the library is made
here, with a function of ours that runs in the VE, behind its namespaces, cgroup, seccomp profile and capabilities, just
before the command: it looks the user up in the VE's own files, becomes it, and executes. What fails before the command
exists is told through a socket (`_trouble`), for a command's exit code says nothing of that. The terminal goes through
it too: LXC leaves it to the host's root, so that not even root of the VE could open it by its name; who has the socket
gives it to the user.

Each import here is time of every exec: there are as few as can be.
"""
# ruff: noqa: SIM105 - contextlib would be such an import

import ctypes
import os
import stat
import sys
from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal  # type: ignore[import-not-found]
from _socket import SCM_RIGHTS, SOL_SOCKET, socket

from veagent.inside.users import NoSuchUser, User, read_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_BEGUN = 125
NOT_EXECUTED = "not_executed"
"""Kind of trouble: it is said as a shell would, with its exit code."""
TERMINAL = "terminal"
"""No trouble: a terminal comes with it, and the id in the VE of who shall have it."""
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
_DEFAULT_FLAGS, _TERMINAL = 0xFFFF, 0x00080000
_CLEAR_ENV = 1
_PR_SET_DUMPABLE = 4
_WORDS_BYTES = 4096
_TOO_LONG = 7  # E2BIG
_ATTACH_INDEX = 47
_EXEC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _Options(ctypes.Structure):
    """lxc_attach_options_t."""

    _fields_ = (
        ("attach_flags", ctypes.c_int),
        ("namespaces", ctypes.c_int),
        ("personality", ctypes.c_long),
        ("initial_cwd", ctypes.c_char_p),
        ("uid", ctypes.c_uint),
        ("gid", ctypes.c_uint),
        ("env_policy", ctypes.c_int),
        ("extra_env_vars", ctypes.c_void_p),
        ("extra_keep_env", ctypes.c_void_p),
        ("stdin_fd", ctypes.c_int),
        ("stdout_fd", ctypes.c_int),
        ("stderr_fd", ctypes.c_int),
        ("log_fd", ctypes.c_int),
        ("lsm_label", ctypes.c_char_p),
        ("groups_size", ctypes.c_size_t),
        ("groups", ctypes.c_void_p),
    )


class _Container(ctypes.Structure):
    """The begin of struct lxc_container: new members are only ever added behind it."""

    _fields_ = (
        ("data", ctypes.c_void_p * 5),
        ("numthreads", ctypes.c_int),
        ("lxc_conf", ctypes.c_void_p),
        ("error_string", ctypes.c_char_p),
        ("error_num", ctypes.c_int),
        ("daemonize", ctypes.c_bool),
        ("config_path", ctypes.c_char_p),
        ("methods", ctypes.c_void_p * (_ATTACH_INDEX - 10)),
    )


class Task:
    """What to run. `trouble_fd`: a socket, where to say what went wrong before it ran. Without a command: the user's login shell."""

    __slots__ = ("command", "cwd", "env", "lxc_path", "trouble_fd", "tty", "user", "ve")

    def __init__(
        self,
        *,
        lxc_path: str,
        ve: str,
        trouble_fd: int,
        tty: bool,
        user: str,
        cwd: str,
        env: tuple[str, ...],
        command: tuple[str, ...],
    ) -> None:
        self.lxc_path = lxc_path
        self.ve = ve
        self.trouble_fd = trouble_fd
        self.tty = tty
        self.user = user
        self.cwd = cwd
        self.env = env
        self.command = command


def encode(task: Task) -> list[str]:
    """As arguments; `decode` reverses it. Without JSON, whose import costs as much as all the rest."""
    tty = "tty" if task.tty else ""
    head = [task.lxc_path, task.ve, str(task.trouble_fd), tty, task.user, task.cwd]
    return [*head, str(len(task.env)), *task.env, *task.command]


def decode(words: list[str]) -> Task:
    path, ve, trouble, tty, user, cwd, count, *rest = words
    env, command = rest[: int(count)], rest[int(count) :]
    return Task(
        lxc_path=path,
        ve=ve,
        trouble_fd=int(trouble),
        tty=bool(tty),
        user=user,
        cwd=cwd,
        env=tuple(env),
        command=tuple(command),
    )


def main() -> "NoReturn":
    """The command's exit code; 128 + N when signal N ended it; 125 and a word of trouble when it did not begin."""
    task = decode(sys.argv[1:])
    os.set_inheritable(task.trouble_fd, False)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    run = _EXEC(lambda _: _begin(task))
    pid = _attach(task, run)
    if pid < 0:
        _trouble(
            task,
            "conflict",
            "the VE can't be entered: it is stopping, or has no process or memory left for it",
        )
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _attach(task: Task, run: "Callable[[int], int]") -> int:
    """Pid of the command; with a tty, after its end. -1: it did not work out."""
    lib = ctypes.CDLL("liblxc.so.1")
    lib.lxc_container_new.restype = ctypes.POINTER(_Container)
    container = lib.lxc_container_new(os.fsencode(task.ve), os.fsencode(task.lxc_path))
    if not container:
        return -1
    options = _Options(
        attach_flags=_DEFAULT_FLAGS | (_TERMINAL if task.tty else 0),
        namespaces=-1,
        personality=-1,
        uid=0xFFFFFFFF,
        gid=0xFFFFFFFF,
        env_policy=_CLEAR_ENV,
        stdin_fd=0,
        stdout_fd=1,
        stderr_fd=2,
        log_fd=-9,
    )
    kind = ctypes.CFUNCTYPE(
        *(ctypes.c_int, ctypes.c_void_p, _EXEC, ctypes.c_void_p),
        *(ctypes.POINTER(_Options), ctypes.POINTER(ctypes.c_int)),
    )
    attach = kind(container.contents.methods[-1])
    pid = ctypes.c_int(-1)
    done = attach(ctypes.cast(container, ctypes.c_void_p), run, None, options, ctypes.byref(pid))
    return pid.value if done == 0 else -1


# --- inside the VE ------------------------------------------------------------------------------------------------


def _begin(task: Task) -> int:
    """Becomes the command. Whatever happens, nothing of this program runs on in the VE."""
    try:
        _become(task)
    except NoSuchUser as error:
        _trouble(task, "not_found", str(error))
    except _CantBegin as error:
        _trouble(task, "invalid_input", str(error))
    except _NotExecuted as error:
        words, code = error.args
        _trouble(task, NOT_EXECUTED, words, code)
    except BaseException as error:  # noqa: BLE001
        _trouble(task, "remote_failed", f"{type(error).__name__}: {error}")
    return NOT_BEGUN


class _CantBegin(Exception):
    """The text says why."""


class _NotExecuted(Exception):
    """Text and exit code."""


def _become(task: Task) -> "NoReturn":
    sys.meta_path.clear()  # what would be imported now would be the VE's
    user = read_user(task.user)
    env = environment(user, task, _inherited())
    if task.tty:
        _give_terminal(task, user)
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    os.umask(0o022)
    _enter_folder(task.cwd, user.home)
    for number in (SIGPIPE, SIGXFSZ):
        signal(number, SIG_DFL)
    _execute(*command_of(user, task, shell_works=_is_program), env)


def environment(user: User, task: Task, inherited: dict[str, str]) -> dict[str, str]:
    """What the VE's configuration gives, over what a user needs; what was asked over all."""
    needed = {"PATH": PATH, "HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    if not task.command:
        needed["SHELL"] = user.shell or "/bin/sh"
    if task.tty:
        needed["TERM"] = "xterm"
    own = {key: value for key, value in inherited.items() if key not in ("HOME", "USER")}
    asked = dict(word.split("=", 1) for word in task.env)
    return {**needed, **own, **asked}


def command_of(
    user: User, task: Task, *, shell_works: "Callable[[str], bool]"
) -> tuple[str, list[str]]:
    """Program and arguments; a login shell is told so by the dash before its name."""
    if task.command:
        return task.command[0], list(task.command)
    shell = user.shell if user.shell and shell_works(user.shell) else "/bin/sh"
    return shell, [f"-{shell.rpartition('/')[2]}"]


def _inherited() -> dict[str, str]:
    """What LXC has put into the environment: `lxc.environment`, and container=lxc. Python has read it long before."""
    words = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    found = {}
    position = 0
    while words and words[position] is not None:
        key, equals, value = os.fsdecode(words[position]).partition("=")
        if equals:
            found[key] = value
        position += 1
    return found


def _give_terminal(task: Task, user: User) -> None:
    fd = (0).to_bytes(4, sys.byteorder)
    words = f"{TERMINAL}\n{user.uid}".encode()
    _channel(task).sendmsg([words], [(SOL_SOCKET, SCM_RIGHTS, fd)])


def _channel(task: Task) -> socket:
    return socket(fileno=os.dup(task.trouble_fd))


def _enter_folder(asked: str, home: str) -> None:
    """The asked one must be there, and be one that the user may enter."""
    if asked:
        try:
            os.chdir(asked)
        except OSError as error:
            raise _CantBegin(f"cwd {asked}: {error.strerror}") from None
        return
    for folder in (home, "/"):
        try:
            os.chdir(folder)
        except (OSError, ValueError):
            continue
        return


def _is_program(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def _execute(program: str, argv: list[str], env: dict[str, str]) -> "NoReturn":
    """_NotExecuted with 127 or 126, as of a shell. (`os.execvpe` would import.)"""
    folders = [""] if "/" in program else [f"{name}/" for name in env["PATH"].split(":") if name]
    code = _NOT_FOUND
    for folder in folders:
        try:
            os.execve(f"{folder}{program}", argv, env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno == _TOO_LONG:
                raise _CantBegin("the command is too long for the kernel") from None
            code = _NOT_EXECUTABLE
    reason = "can't be executed" if code == _NOT_EXECUTABLE else "not found"
    raise _NotExecuted(f"{program}: {reason}", code)


def _trouble(task: Task, kind: str, message: str, code: int = NOT_BEGUN) -> "NoReturn":
    words = f"{kind}\n{message}".encode(errors="replace")[:_WORDS_BYTES]
    try:
        _channel(task).sendmsg([words])
    except OSError:
        pass
    os._exit(code)
