"""A whole root as a tar packed by zstd, on stdout. The last line of stderr is JSON, as of `transfer`.

`tar` and `zstd` run in namespaces of their own with the VE's ids, and see the host's programs and the root, read-only both.
"""

import json
import os
import sys
from typing import NoReturn

from veagent.inside.enter import close_up, enter_stopped, hide

_WORDS_BYTES = 4096


def main() -> NoReturn:
    """Job: root, id_base, tar and zstd (argument lists with absolute programs)."""
    job = json.loads(sys.argv[1])
    try:
        hide()
        enter_stopped(job["root"], int(job["id_base"]), read_only=True, tools=True)
        os.chdir("/target")
        codes, words = _run(job["tar"], job["zstd"])
    except OSError as error:
        codes, words = (1, 0), str(error)
    failed = codes != (0, 0)
    said = {
        "error": "remote_failed" if failed else "",
        "message": f"the root can't be packed: {words}",
        "hint": "try again; the agent's log may say more",
    }
    os.write(2, b"\n" + json.dumps(said if failed else {}).encode() + b"\n")
    os._exit(int(failed))


def _run(tar: list[str], zstd: list[str]) -> tuple[tuple[int, int], str]:
    plain, words = os.pipe(), os.pipe()
    pids = [
        _start(tar, stdin=0, stdout=plain[1], stderr=words[1]),
        _start(zstd, stdin=plain[0], stdout=1, stderr=words[1]),
    ]
    close_up()
    for fd in (*plain, words[1], 1):
        os.close(fd)
    said = b""
    while piece := os.read(words[0], _WORDS_BYTES):
        said = (said + piece)[-_WORDS_BYTES:]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    lines = said.decode(errors="replace").strip().splitlines()
    return (codes[0], codes[1]), "; ".join(lines[-3:])


def _start(argv: list[str], *, stdin: int, stdout: int, stderr: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    for fd, number in ((stdin, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, number)
    try:
        os.execve(argv[0], argv, {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})  # noqa: S606
    except OSError:
        os._exit(127)
