"""What a VE runs as its init: /sbin/init as root, or the command of its image or spec as a user of the VE.

The user is looked up in the VE's own files, which are opened beneath its root: its links lead nowhere on the host.
The command never becomes text that LXC parses: it is given to lxc-start as arguments.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from veagent.inside.users import NoSuchUser, User, find_user
from veagent.ports import StartPlan
from veagent.storage import beneath
from veapi import validate
from veapi.errors import Conflict, InvalidInput

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FILE_LIMIT_BYTES = 1 << 20
_CWD = re.compile(r"/[^\x00\n\r]{0,4095}")


@dataclass(frozen=True, slots=True)
class Program:
    """`argv`: empty for /sbin/init. Ids as the VE numbers them. `environment`: what the plan's lacks.

    It has one group: LXC 5.0 gives an init no others within a user namespace.
    """

    argv: tuple[str, ...] = ()
    uid: int = 0
    gid: int = 0
    cwd: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def program_of(plan: StartPlan) -> Program:
    """Reads the VE's root when the plan names a command. Conflict when the VE has no such user, InvalidInput for odd values."""
    if not plan.command:
        return Program()
    validate.command("command", plan.command)
    if plan.cwd and not (_CWD.fullmatch(plan.cwd) and plan.cwd == plan.cwd.strip()):
        raise InvalidInput(f"cwd {plan.cwd!r} is not usable", hint="give an absolute path")
    user = _user(plan.user, plan.root)
    missing = {"HOME": user.home, "PATH": PATH}
    return Program(
        argv=plan.command,
        uid=user.uid,
        gid=user.gid,
        cwd=plan.cwd,
        environment={key: missing[key] for key in missing if key not in plan.environment},
    )


def _user(wanted: str, root: Path) -> User:
    with beneath.opened_root(root) as fd:
        passwd, group = _lines(fd, "etc/passwd"), _lines(fd, "etc/group")
    try:
        return find_user(wanted, passwd, group)
    except NoSuchUser as error:
        raise Conflict(
            f"the VE's command can't run as {wanted[:64]!r}: {error}",
            hint="the image names a user that its /etc/passwd does not have",
        ) from None


def _lines(root_fd: int, path: str) -> list[str]:
    try:
        data = beneath.read_within(root_fd, path, most_bytes=_FILE_LIMIT_BYTES)
    except OSError:
        return []
    return data.decode("utf-8", "surrogateescape").split("\n")
