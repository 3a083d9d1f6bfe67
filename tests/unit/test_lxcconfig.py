"""LXC's configuration as text."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from veagent.ports import Nic, StartPlan
from veagent.runtime.lxcconfig import HostPart, render
from veapi.errors import InvalidInput
from veapi.model import Limits, Uid

UID = Uid("4b1b8a8e-0000-4000-8000-000000000001")
NIC = Nic("vrbr0", "vr4b1b8a8e", "02:00:0a:42:00:05", "10.66.0.5", 16, "10.66.0.1", 1450)
PLAN = StartPlan(
    uid=UID,
    hostname="web-1",
    root=Path("/pool/ve/root of it"),
    id_base=1_065_536,
    limits=Limits(cpu_millis=1000, memory_bytes=1 << 30, pids=512),
    nic=NIC,
    environment={"B": 'two "words" = x', "A": "1"},
)
HOST = HostPart(
    folder=Path("/state/lxc") / UID,
    log=Path(f"/run/lxc/state/lxc/{UID}.log"),
    seccomp=Path("/state/lxc/ve.seccomp"),
    cgroup_version=1,
    cgroup_container=f"verack/h1/ve/{UID}/ct",
    cgroup_monitor=f"verack/h1/mon/{UID}",
    cgroup_pivot="verack/h1/pivot",
    lxcfs=Path("/var/lib/lxcfs"),
    lxcfs_files=("proc/meminfo", "sys/devices/system/cpu"),
)
GOLDEN = f"""\
lxc.uts.name = web-1
lxc.rootfs.path = dir:/pool/ve/root of it
lxc.idmap = u 0 1065536 65536
lxc.idmap = g 0 1065536 65536
lxc.rootfs.options = idmap=container
lxc.init.cmd = /sbin/init
lxc.tty.max = 0
lxc.pty.max = 1024
lxc.autodev = 1
lxc.autodev.tmpfs.size = 500000
lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio
lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed
lxc.mount.entry = tmpfs dev/shm tmpfs rw,nosuid,nodev,mode=1777,create=dir 0 0
lxc.environment = container=lxc
lxc.keyring.session = 0
lxc.log.level = FATAL
lxc.console.rotate = 1
lxc.hook.version = 1
lxc.cgroup.dir.container = verack/h1/ve/{UID}/ct
lxc.cgroup.dir.monitor = verack/h1/mon/{UID}
lxc.cgroup.dir.monitor.pivot = verack/h1/pivot
lxc.cgroup.cpu.cfs_period_us = 100000
lxc.cgroup.cpu.cfs_quota_us = 100000
lxc.mount.entry = /var/lib/lxcfs/proc/meminfo proc/meminfo none bind,ro,optional 0 0
lxc.mount.entry = /var/lib/lxcfs/sys/devices/system/cpu sys/devices/system/cpu none bind,ro,optional 0 0
lxc.net.0.type = veth
lxc.net.0.link = vrbr0
lxc.net.0.veth.pair = vr4b1b8a8e
lxc.net.0.name = eth0
lxc.net.0.hwaddr = 02:00:0a:42:00:05
lxc.net.0.mtu = 1450
lxc.net.0.ipv4.address = 10.66.0.5/16
lxc.net.0.ipv4.gateway = 10.66.0.1
lxc.net.0.flags = up
lxc.seccomp.profile = /state/lxc/ve.seccomp
lxc.log.file = /run/lxc/state/lxc/{UID}.log
lxc.console.logfile = /state/lxc/{UID}/console
lxc.console.size = 1024kB
lxc.hook.post-stop = /bin/sh -c 'echo $LXC_TARGET >/state/lxc/{UID}/ended; test $LXC_TARGET = stop'
lxc.environment = A=1
lxc.environment = B=two "words" = x
"""


def test_the_whole_configuration() -> None:
    assert render(PLAN, HOST) == GOLDEN


def test_nothing_is_included() -> None:
    assert "lxc.include" not in render(PLAN, HOST)


def test_without_a_card_there_is_loopback() -> None:
    text = render(replace(PLAN, nic=None), HOST)
    assert "lxc.net.0.type = empty\nlxc.net.0.flags = up\n" in text
    assert "veth" not in text


def test_without_a_gateway_there_is_no_route() -> None:
    assert "gateway" not in render(replace(PLAN, nic=replace(NIC, gateway="")), HOST)


def test_without_lxcfs_nothing_of_it_is_mounted() -> None:
    for host in (replace(HOST, lxcfs=None), replace(HOST, lxcfs_files=())):
        assert "lxcfs" not in render(PLAN, host)


def test_devices_are_lxcs_only_on_v2() -> None:
    assert "cgroup2" not in render(PLAN, HOST)
    text = render(PLAN, replace(HOST, cgroup_version=2))
    assert text.index("lxc.cgroup2.devices.deny = a") < text.index("lxc.cgroup2.devices.allow = ")
    assert "lxc.cgroup2.devices.allow = c 1:3 rwm" in text
    assert "lxc.cgroup2.cpu.max = 100000 100000" in text
    assert "lxc.cgroup.cpu" not in text


def test_without_a_cpu_limit_there_is_no_quota() -> None:
    for version in (1, 2):
        host = replace(HOST, cgroup_version=version)
        assert ".cpu." not in render(replace(PLAN, limits=Limits()), host)


EVIL = "x\nlxc.hook.pre-start = /bin/evil"


@pytest.mark.parametrize(
    "change",
    [
        {"uid": EVIL},
        {"uid": "../../etc"},
        {"uid": "-P"},
        {"uid": "UPPER"},
        {"uid": ""},
        {"uid": "a" * 64},
        {"hostname": EVIL},
        {"hostname": ""},
        {"hostname": "-x"},
        {"hostname": "a" * 64},
        {"root": Path(f"/pool/{EVIL}")},
        {"root": Path("relative")},
        {"id_base": 0},
        {"id_base": 65_535},
        {"id_base": (1 << 32) - 65_537},
        {"environment": {"A": EVIL}},
        {"environment": {"A=B\n": "x"}},
        {"environment": {"": "x"}},
        {"environment": {"A": "nul\0"}},
        {"nic": replace(NIC, bridge=EVIL)},
        {"nic": replace(NIC, device="sixteen-letters-")},
        {"nic": replace(NIC, device="../x")},
        {"nic": replace(NIC, mac="02:00:00:00:00")},
        {"nic": replace(NIC, address="10.66.0.5/8")},
        {"nic": replace(NIC, gateway=EVIL)},
        {"nic": replace(NIC, prefix_length=33)},
        {"nic": replace(NIC, mtu=0)},
    ],
)
def test_a_value_that_is_no_value_is_refused(change: Mapping[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        render(replace(PLAN, **change), HOST)  # type: ignore[arg-type]
    assert caught.value.hint
