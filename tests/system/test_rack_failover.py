"""A whole host is lost: its VEs of policy recreate run elsewhere, once; and what becomes of it when it is back."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from devrack import cgroups
from kit.rack import Rack, running_rack, until

FENCED = [f"f{number:02}" for number in range(20)]


@pytest.fixture(scope="module")
def lossy(host_can_run_ves: None) -> Iterator[Rack]:
    """A rack of its own: hosts are lost here."""
    with running_rack("f", cpu=16) as made:
        yield made


def hosts_of(rack: Rack) -> dict[str, str]:
    return {ve["name"]: ve["placement"]["host"] for ve in rack.ves()}


def fill(rack: Rack) -> None:
    """Twenty VEs on h1 that may move, and one there and one elsewhere that stay."""
    for host in ("h2", "h3"):
        rack.vectl("host", "cordon", host)
    small = ("--cpu", "0.1", "--memory", "32M", "--disk", "256M", "--image", "busybox")
    for name in FENCED:
        rack.vectl("create", name, *small, "--on-host-loss", "recreate")
    rack.vectl("create", "stays", *small)
    for host in ("h2", "h3"):
        rack.vectl("host", "uncordon", host)
    rack.vectl("create", "looks", *small, "--host", "h2")
    assert {hosts_of(rack)[name] for name in (*FENCED, "stays")} == {"h1"}


def pings(rack: Rack, ve: dict[str, Any]) -> bool:
    """Whether it answers at its address another VE, on h2."""
    ip = ve["status"]["addresses"][0]
    ping = ("ping", "-c", "1", "-W", "1", ip)
    return rack.vectl("exec", "looks", "--", *ping, code=None).code == 0


def cut(rack: Rack, host: str) -> None:
    rack.run_in(host, "ip", "link", "set", "eth0", "down")


def mend(rack: Rack, host: str) -> None:
    rack.run_in(host, "ip", "link", "set", "eth0", "up")


def runs_on(rack: Rack, host: str, uid: str) -> bool:
    """By the kernel alone: nobody is asked."""
    return bool(cgroups.processes(f"{rack.plan.cgroup}/{host}/ve/{uid}"))


def test_twenty_ves_of_a_lost_host_run_elsewhere_with_their_addresses_and_once(
    lossy: Rack,
) -> None:
    fill(lossy)
    before = {ve["name"]: ve for ve in lossy.ves()}
    uids = [before[name]["uid"] for name in FENCED]
    assert all(runs_on(lossy, "h1", uid) for uid in uids)
    for name in ("f00", "f19"):  # so that all the way to it is known, and wrong afterwards
        assert pings(lossy, before[name])
    lossy.vectl("exec", "f00", "--", "sh", "-c", "echo mine > /root/mark")

    cut(lossy, "h1")
    told: set[str] = set()

    def all_run_elsewhere() -> bool:
        """And none of them was moved while it still ran on the lost host."""
        ves = {ve["name"]: ve for ve in lossy.ves()}
        told.update(ves[name]["status"].get("message", "") for name in ("f00", "stays"))
        moved = [ves[name] for name in FENCED if ves[name]["placement"]["host"] != "h1"]
        assert not [ve["name"] for ve in moved if runs_on(lossy, "h1", ve["uid"])]
        return len(moved) == len(FENCED) and {ve["status"]["state"] for ve in moved} == {"Running"}

    until(all_run_elsewhere, within_s=60, what="all run elsewhere")
    assert any("it may be moved in" in message for message in told)
    assert any("its policy is stay" in message for message in told)
    assert runs_on(lossy, "h1", before["stays"]["uid"])
    after = {ve["name"]: ve for ve in lossy.ves()}
    assert all(after[n]["status"]["addresses"] == before[n]["status"]["addresses"] for n in FENCED)
    assert hosts_of(lossy)["stays"] == "h1"
    assert lossy.vectl("exec", "f00", "--", "ls", "/root").out.strip() == ""
    assert "from host h1" in lossy.vectl("events", "f00").out
    for name in ("f00", "f19"):
        until(
            partial(pings, lossy, after[name]),
            within_s=10,
            what=f"{name} answers at its address",
        )

    assert {ve["status"]["reason"] for ve in lossy.kept() if ve["name"] in FENCED} == {"Left"}
    pids = lossy.pids()
    mend(lossy, "h1")
    lossy.until_ready()
    until(
        lambda: all("kept for a while" in ve["status"]["message"] for ve in lossy.kept()),
        within_s=30,
        what="h1 has said that what it lost is down",
    )
    assert {name: pids[name] for name in FENCED} == {n: lossy.pids()[n] for n in FENCED}
    assert lossy.pids()["stays"] == pids["stays"]
    lossy.vectl("purge", "--yes", "f00")
    assert sorted(ve["name"] for ve in lossy.kept()) == FENCED[1:]
    assert not any(runs_on(lossy, "h1", uid) for uid in uids)
