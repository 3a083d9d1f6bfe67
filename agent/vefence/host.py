"""What vefence asks of the kernel for itself and against what does not die. No call here can wait for a disk or a network."""

import ctypes
import os
import select
import sys
from contextlib import suppress
from pathlib import Path

_MCL_CURRENT, _MCL_FUTURE = 1, 2
_IFF_UP = 1
_NET = Path("/sys/class/net")
_SYSRQ = Path("/proc/sysrq-trigger")
_LINE_BYTES = 4096


def say(phrase: str, **fields: object) -> None:
    """A line on stderr, if somebody takes it at once: nobody's log may hold this process up."""
    line = " ".join([phrase, *(f"{name}={value}" for name, value in fields.items())])
    poll = select.poll()
    poll.register(sys.stderr.fileno(), select.POLLOUT)
    with suppress(OSError):
        if poll.poll(0):
            os.write(sys.stderr.fileno(), f"vefence: {line}\n".encode()[:_LINE_BYTES])


def harden() -> None:
    """Memory that is never paged out, no out-of-memory kill, and the CPU first. What is refused is said, and done without."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        say("memory not locked", error=os.strerror(ctypes.get_errno()))
    try:
        Path("/proc/self/oom_score_adj").write_text("-1000")
    except OSError as error:
        say("may be killed for want of memory", error=error.strerror)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError as error:
        say("no real-time priority", error=error.strerror)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def cut_link(device: str) -> bool:
    """Takes the network card down, by its file: this process may make no sockets. False: it is down, or not there."""
    path = _NET / device / "flags"
    try:
        flags = int(path.read_text(), 16)
        if not flags & _IFF_UP:
            return False
        path.write_text(hex(flags & ~_IFF_UP))
    except (OSError, ValueError) as error:
        if path.exists():
            say("network card not taken down", device=device, error=error)
        return False
    return True


def reboot(trigger: Path = _SYSRQ) -> None:
    """At once: nothing is written back, nobody is asked."""
    try:
        trigger.write_text("b")
    except OSError as error:
        say("host not rebooted", error=error.strerror)


class Watchdog:
    """The device that reboots the host unless it is petted; opened when it can be, and not before the first pet.

    `close(safe=True)` has it stop; else it goes on, and what comes after this process must pet it in time.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._fd = -1

    def pet(self) -> None:
        if self._path is None:
            return
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                say("watchdog begun", device=self._path)
            os.write(self._fd, b".")
        except OSError as error:
            say("watchdog not petted", error=error.strerror)

    def close(self, *, safe: bool) -> None:
        if self._fd < 0:
            return
        with suppress(OSError):
            if safe:
                os.write(self._fd, b"V")
            os.close(self._fd)
        self._fd = -1
