"""Snapshots of a VE through vectl: by hand and by schedule, restored and deleted."""

from collections.abc import Iterator
from typing import Any

import pytest

from kit.rack import Rack, until
from kit.rackstore import age_snapshots
from kit.vps import address, sh, state, tried, unrestarted

SIZE_MIB = 64


@pytest.fixture
def vps(clean: Rack) -> Iterator[Rack]:
    """A rack with one VE, `vps`, on h1."""
    clean.vectl("create", "vps", "--image", "busybox", "--host", "h1", "--memory", "64M", "--cpu", "0.5",
                "--disk", f"{SIZE_MIB}M")  # fmt: skip
    yield clean


def snapshots(rack: Rack, name: str = "vps") -> list[dict[str, Any]]:
    items = rack.vectl("snapshot", "list", name, "-o", "json").json()["items"]
    assert isinstance(items, list)
    return items


def ready(rack: Rack) -> list[str]:
    """Tags of those that a person asked for, the oldest first."""
    return [e["tag"] for e in snapshots(rack) if e["state"] == "Ready" and not e.get("rule")]


def scheduled(rack: Rack) -> list[dict[str, Any]]:
    """Those of the schedule that are there."""
    return [e for e in snapshots(rack) if e["state"] == "Ready" and e.get("rule") == "every 1h"]


def one_more(rack: Rack) -> None:
    """Time goes on until the schedule takes one."""

    def last() -> int:
        return max((int(each["seq"]) for each in scheduled(rack)), default=0)

    before = last()
    age_snapshots(rack, "vps", 3600)
    until(lambda: last() > before, within_s=60, what="the next snapshot")


def test_by_hand_listed_restored_and_deleted(vps: Rack) -> None:
    sh(vps, "vps", "echo one >/root/data")
    with unrestarted(vps, "vps"):
        vps.vectl("snapshot", "vps", "first")
        sh(vps, "vps", "echo two >/root/data")
        vps.vectl("snapshot", "take", "vps", "second")
        assert "first" in vps.vectl("snapshot", "vps", "first", code=4).err
    assert ready(vps) == ["first", "second"]
    where = (vps.ve("vps")["uid"], address(vps, "vps"))
    vps.vectl("restore", "vps", "first", "--yes")
    assert sh(vps, "vps", "cat /root/data") == "one"
    assert (vps.ve("vps")["uid"], address(vps, "vps")) == where
    vps.vectl("restore", "vps", "second", "--yes")
    assert sh(vps, "vps", "cat /root/data") == "two"
    with unrestarted(vps, "vps"):
        vps.vectl("snapshot", "delete", "vps", "first", "second")
    assert snapshots(vps) == []
    assert "first" in vps.vectl("restore", "vps", "first", "--yes", code=3).err


def test_of_a_stopped_ve_and_without_a_tag(vps: Rack) -> None:
    sh(vps, "vps", "echo one >/root/data; sync")
    vps.vectl("stop", "vps", "--force")
    vps.vectl("snapshot", "vps")
    (tag,) = ready(vps)
    vps.vectl("start", "vps")
    sh(vps, "vps", "rm /root/data")
    vps.vectl("stop", "vps", "--force")
    vps.vectl("restore", "vps", tag, "--yes")
    assert state(vps, "vps") == "Stopped"
    vps.vectl("start", "vps")
    assert sh(vps, "vps", "cat /root/data") == "one"


def test_root_and_snapshots_share_the_disk_limit(vps: Rack) -> None:
    write = "dd if=/dev/urandom of=/root/big bs=1M count=40 conv=fsync"
    sh(vps, "vps", write)
    vps.vectl("snapshot", "vps", "full")
    refused = tried(vps, "vps", f"rm /root/big; {write}")
    assert "quota" in refused.err.lower()
    vps.vectl("snapshot", "delete", "vps", "full")

    def fits() -> bool:
        return tried(vps, "vps", f"rm -f /root/big; {write}").code == 0

    until(fits, within_s=90, what="the room of the snapshot is free again")


def test_snapshots_outlive_a_rebuild_and_go_with_the_ve(vps: Rack) -> None:
    sh(vps, "vps", "echo one >/root/data")
    vps.vectl("snapshot", "vps", "before")
    vps.vectl("rebuild", "vps", "--yes")
    assert sh(vps, "vps", "ls /root") == ""
    vps.vectl("restore", "vps", "before", "--yes")
    assert sh(vps, "vps", "cat /root/data") == "one"
    uid = vps.ve("vps")["uid"]
    vps.purge("vps")
    assert uid not in vps.run_in_host("h1", "find", str(vps.plan.host_state(vps.host("h1"))))


def test_a_schedule_takes_them_and_keeps_so_many(vps: Rack) -> None:
    sh(vps, "vps", "echo one >/root/data")
    vps.vectl("snapshot", "vps", "mine")
    vps.vectl("set", "vps", "--snapshots", "every 1h keep 2")

    for _ in range(3):
        one_more(vps)
    until(lambda: len(scheduled(vps)) == 2, within_s=60, what="the oldest is gone")
    assert ready(vps) == ["mine"]
    kept = scheduled(vps)
    vps.vectl("set", "vps", "--snapshots", "none")
    age_snapshots(vps, "vps", 3600)
    vps.vectl("restore", "vps", kept[0]["tag"], "--yes")
    assert sh(vps, "vps", "cat /root/data") == "one"
    assert [each["seq"] for each in scheduled(vps)] == [each["seq"] for each in kept]
