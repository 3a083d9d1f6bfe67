"""LXC's configuration of a VE: pure, and complete in itself.

Nothing is included: Debian's common.conf brings a hook that sleeps half a second at every end. Every value is checked
before it becomes a line, because a line break in one would be another setting.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from veagent.cgroup.layout import DEVICES, PERIOD_US, quota_us
from veagent.ports import Nic, StartPlan
from veagent.runtime.program import Program
from veapi.errors import InvalidInput

_INIT = Program()
IDS = 65_536
_HIGHEST_ID = (1 << 32) - 2

UID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SAFE_PATH = re.compile(r"/[A-Za-z0-9._/@%+=-]*")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ONE_LINE = re.compile(r"[^\x00\n\r]*")
_DENIED_CAPABILITIES = "mac_admin mac_override sys_time sys_module sys_rawio"
CONSOLE_BYTES = 1 << 20
"""By default; the console's log is at most twice this: `console`, and `console.1` with what was before."""
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class HostPart:
    """What a host gives to the configuration. Paths match `SAFE_PATH`; `lxcfs_files` is empty when it does not answer."""

    folder: Path
    log: Path
    seccomp: Path
    cgroup_version: int
    cgroup_container: str
    cgroup_monitor: str
    cgroup_pivot: str
    lxcfs: Path | None = None
    lxcfs_files: tuple[str, ...] = ()
    console_bytes: int = CONSOLE_BYTES


def render(plan: StartPlan, host: HostPart, program: Program = _INIT) -> str:
    """The text of the configuration; InvalidInput, naming field and value, when some value can't be in one."""
    check(plan)
    environment = {**program.environment, **plan.environment}
    lines = [
        *_identity(plan),
        *_FIXED,
        *_cgroups(host, quota_us(plan.limits)),
        *_lxcfs(host),
        *_network(plan.nic),
    ]
    lines += _files(host)
    lines += _program(program)
    lines += [f"lxc.environment = {key}={value}" for key, value in sorted(environment.items())]
    return "\n".join(lines) + "\n"


def check(plan: StartPlan) -> None:
    """Refuses what could not be written safely, and ids that are the host's own."""
    check_uid(plan.uid)
    _match("hostname", plan.hostname, _HOSTNAME, "letters, digits and dashes, at most 63")
    _match("root", str(plan.root), _ONE_LINE, "no line break")
    if not plan.root.is_absolute():
        raise InvalidInput(f"root {str(plan.root)!r} is not absolute", hint="give a full path")
    if not IDS <= plan.id_base <= _HIGHEST_ID - IDS:
        raise InvalidInput(
            f"id_base {plan.id_base} is out of range",
            hint=f"a VE's ids are never the host's own: {IDS} to {_HIGHEST_ID - IDS}",
        )
    for key, value in plan.environment.items():
        _match("environment variable", key, VARIABLE, "letters, digits and underscores")
        _match(f"environment {key}", value, _ONE_LINE, "no line break")
    if plan.nic is not None:
        _check_nic(plan.nic)


def check_uid(uid: str) -> None:
    """A uid becomes a path, an argument and a cgroup's name."""
    _match("uid", uid, UID, "a lower-case UUID")


_FIXED = (
    "lxc.rootfs.options = idmap=container",
    "lxc.init.cmd = /sbin/init",
    "lxc.tty.max = 0",
    "lxc.pty.max = 1024",
    "lxc.autodev = 1",
    "lxc.autodev.tmpfs.size = 500000",
    f"lxc.cap.drop = {_DENIED_CAPABILITIES}",
    "lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed",
    "lxc.mount.entry = tmpfs dev/shm tmpfs rw,nosuid,nodev,mode=1777,create=dir 0 0",
    "lxc.environment = container=lxc",
    "lxc.keyring.session = 0",
    "lxc.log.level = FATAL",
    "lxc.console.rotate = 1",
    "lxc.hook.version = 1",
)


def _identity(plan: StartPlan) -> Iterator[str]:
    yield f"lxc.uts.name = {plan.hostname}"
    yield f"lxc.rootfs.path = dir:{plan.root}"
    yield f"lxc.idmap = u 0 {plan.id_base} {IDS}"
    yield f"lxc.idmap = g 0 {plan.id_base} {IDS}"


def _cgroups(host: HostPart, quota: int) -> Iterator[str]:
    """Limits are the agent's (see `veagent.cgroup`); devices only where they are no cgroup file.

    The CPU quota is there twice, because lxcfs counts a VE's processors by the innermost folder alone.
    """
    yield f"lxc.cgroup.dir.container = {host.cgroup_container}"
    yield f"lxc.cgroup.dir.monitor = {host.cgroup_monitor}"
    yield f"lxc.cgroup.dir.monitor.pivot = {host.cgroup_pivot}"
    if quota > 0 and host.cgroup_version == 1:
        yield f"lxc.cgroup.cpu.cfs_period_us = {PERIOD_US}"
        yield f"lxc.cgroup.cpu.cfs_quota_us = {quota}"
    if quota > 0 and host.cgroup_version == 2:
        yield f"lxc.cgroup2.cpu.max = {quota} {PERIOD_US}"
    if host.cgroup_version == 2:
        yield "lxc.cgroup2.devices.deny = a"
        yield from (f"lxc.cgroup2.devices.allow = {device}" for device in DEVICES)


def _program(program: Program) -> Iterator[str]:
    """The command itself is no line: lxc-start gets it as arguments, so that nothing of it is parsed."""
    if not program.argv:
        return
    yield f"lxc.init.uid = {program.uid}"
    yield f"lxc.init.gid = {program.gid}"
    if program.cwd:
        yield f"lxc.init.cwd = {program.cwd}"


def _lxcfs(host: HostPart) -> Iterator[str]:
    for name in host.lxcfs_files if host.lxcfs else ():
        yield f"lxc.mount.entry = {host.lxcfs}/{name} {name} none bind,ro,optional 0 0"


def _network(nic: Nic | None) -> Iterator[str]:
    if nic is None:
        yield "lxc.net.0.type = empty"
        yield "lxc.net.0.flags = up"
        return
    yield "lxc.net.0.type = veth"
    yield f"lxc.net.0.link = {nic.bridge}"
    yield f"lxc.net.0.veth.pair = {nic.device}"
    yield "lxc.net.0.name = eth0"
    yield f"lxc.net.0.hwaddr = {nic.mac}"
    yield f"lxc.net.0.mtu = {nic.mtu}"
    yield f"lxc.net.0.ipv4.address = {nic.address}/{nic.prefix_length}"
    if nic.gateway:
        yield f"lxc.net.0.ipv4.gateway = {nic.gateway}"
    yield "lxc.net.0.flags = up"


def _files(host: HostPart) -> Iterator[str]:
    """The hook turns a reboot inside into a stop: LXC 5.0 restarts init itself with a root that is not idmapped."""
    yield f"lxc.seccomp.profile = {host.seccomp}"
    yield f"lxc.log.file = {host.log}"
    yield f"lxc.console.logfile = {host.folder}/console"
    yield f"lxc.console.size = {max(1, host.console_bytes // _PAGE_BYTES) * _PAGE_BYTES // 1024}kB"
    note = f"echo $LXC_TARGET >{host.folder}/ended; test $LXC_TARGET = stop"
    yield f"lxc.hook.post-stop = /bin/sh -c '{note}'"


def _check_nic(nic: Nic) -> None:
    _match("bridge", nic.bridge, _DEVICE, "at most 15 characters")
    _match("device", nic.device, _DEVICE, "at most 15 characters")
    _match("mac", nic.mac, _MAC, "six pairs of hex digits")
    for name, value in (("address", nic.address), ("gateway", nic.gateway or "0.0.0.0")):  # noqa: S104
        try:
            IPv4Address(value)
        except AddressValueError:
            raise InvalidInput(
                f"{name} {value!r} is no IPv4 address", hint="e.g. 10.66.0.5"
            ) from None
    if not 0 < nic.prefix_length <= 32 or not 68 <= nic.mtu <= 65_535:
        raise InvalidInput(
            f"prefix length {nic.prefix_length} or MTU {nic.mtu} is out of range",
            hint="1 to 32, and 68 to 65535",
        )


def _match(field: str, value: str, pattern: re.Pattern[str], allowed: str) -> None:
    if not pattern.fullmatch(value):
        raise InvalidInput(f"{field} {value!r} is not usable", hint=f"allowed: {allowed}")
