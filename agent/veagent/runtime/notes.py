"""How inits end, as their monitors tell it.

The hook of the configuration knows a reboot from a stop, but not a poweroff from a kill; the wait status that pidfds give
says SIGKILL for both. The monitor knows: it waits for init, and writes the status into a FIFO, `monitor-fifo`, that
exists for lxc-monitord. We make that FIFO and read it instead: no daemon, one descriptor for all VEs. A monitor finds no
reader while the agent is away, and goes on: then its log has the last word, to which it writes the status as well.
"""

import asyncio
import os
import re
import signal
import stat
import struct
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path

import structlog

from veagent.ports import Ended, EndKind
from veapi.model import Uid

log = structlog.get_logger()
_MESSAGE = struct.Struct("=i256si")  # struct lxc_msg: type, name, value
_EXIT_CODE = 2
_PIPE_BYTES = 1 << 20


def end_of(status: int | None, note: str, exit_status: int | None) -> Ended:
    """`status`: as the monitor told it. `note`: the hook's. `exit_status`: the pidfd's, which only counts alone.

    The kernel ends a PID namespace whose init called reboot(2) with SIGHUP for a restart, SIGINT for anything else.
    """
    if status is None:
        kind = EndKind.HALT if exit_status == 0 else EndKind.CRASH
        return Ended(EndKind.REBOOT if note == "reboot" else kind, exit_status)
    if note == "reboot" or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGHUP):
        return Ended(EndKind.REBOOT, status)
    halted = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT
    return Ended(EndKind.HALT if halted or status == 0 else EndKind.CRASH, status)


_RAN = re.compile(r'^lxc-start .* NOTICE .* - Started ".*" with pid ', re.MULTILINE)
_ENDED = re.compile(
    r"^lxc-start .* INFO .* - Child <\d+> ended on (signal|error) .*?\((\d+)\)$", re.MULTILINE
)


def status_in(log_text: str) -> int | None:
    """Init's wait status as the monitor's log has it; None when it does not tell that an init ran.

    Of an init that exited with 0 there is no line: only ask when the monitor is known to have seen the end.
    """
    if not _RAN.search(log_text):
        return None
    found = _ENDED.findall(log_text)
    if not found:
        return 0
    how, number = found[-1]
    return int(number) if how == "signal" else int(number) << 8


class EndNotes:
    """Collects the wait statuses of all VEs of one LXC path, from the FIFO at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._statuses: dict[Uid, int] = {}

    def open(self) -> None:
        """Makes the FIFO, which may be there from before."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        if not stat.S_ISFIFO(self._path.lstat().st_mode):
            raise FileExistsError(f"{self._path} is no FIFO")
        # For writing too: else each writer that leaves would be an end of file.
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        with suppress(OSError):
            fcntl(self._fd, F_SETPIPE_SZ, _PIPE_BYTES)
        asyncio.get_running_loop().add_reader(self._fd, self.read)

    def read(self) -> None:
        """Takes in what is there. A monitor writes before it ends, so after its end everything is there."""
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _MESSAGE.size * 256)
            except BlockingIOError:
                return
            if len(data) % _MESSAGE.size:
                log.warning("monitor message of unknown size", size=len(data))
                return
            for kind, name, value in _MESSAGE.iter_unpack(data):
                if kind == _EXIT_CODE:
                    self._statuses[Uid(name.split(b"\0", 1)[0].decode(errors="replace"))] = value

    def take(self, uid: Uid) -> int | None:
        """The status of the VE's last end, once."""
        self.read()
        return self._statuses.pop(uid, None)

    def close(self) -> None:
        """Removes the FIFO."""
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        with suppress(OSError):
            self._path.unlink()
