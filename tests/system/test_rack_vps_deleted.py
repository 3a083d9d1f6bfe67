"""The way back from a delete, and its end: by hand, by time, or at once."""

from collections.abc import Iterator

import pytest

from devrack.plan import RackPlan
from kit.rack import Rack, running_rack, until
from kit.vps import address, left, sh, state, until_state

SMALL = ("--image", "busybox", "--memory", "64M", "--cpu", "0.5", "--disk", "128M")
ONE_HOST = RackPlan(name="x").hosts[:1]
KEEP_S = 4


@pytest.fixture
def vps(clean: Rack) -> Iterator[Rack]:
    """A rack with one VE, `vps`, on h1, with data and a snapshot."""
    clean.vectl("create", "vps", *SMALL, "--host", "h1")
    sh(clean, "vps", "echo one >/root/data; sync")
    clean.vectl("snapshot", "vps", "mark")
    sh(clean, "vps", "echo two >/root/data; sync")
    yield clean


@pytest.fixture(scope="module")
def forgetful(host_can_run_ves: None) -> Iterator[Rack]:
    """A rack of one host that keeps deleted VEs for a few seconds."""
    with running_rack("d", hosts=ONE_HOST, keep=f"{KEEP_S}s") as made:
        yield made


def test_a_deleted_ve_is_listed_and_comes_back_with_data_snapshots_and_address(vps: Rack) -> None:
    uid, ip = vps.ve("vps")["uid"], address(vps, "vps")
    told = vps.vectl("delete", "vps", "--yes").err
    assert "vectl undelete vps" in told
    assert vps.ves() == []
    (kept,) = vps.kept()
    assert (kept["name"], kept["uid"], kept["status"]["state"]) == ("vps", uid, "Deleted")
    assert kept["purge_at"] > kept["delete_requested_at"]
    assert "vps" in vps.vectl("list", "--deleted").out
    vps.vectl("undelete", "vps")
    assert vps.kept() == []
    assert vps.ve("vps")["uid"] == uid
    assert address(vps, "vps") == ip
    assert sh(vps, "vps", "cat /root/data") == "two"
    vps.vectl("restore", "vps", "mark", "--yes")
    assert sh(vps, "vps", "cat /root/data") == "one"


def test_name_and_address_are_free_meanwhile_and_two_of_one_name_are_told_apart(vps: Rack) -> None:
    uid, ip = vps.ve("vps")["uid"], address(vps, "vps")
    vps.vectl("delete", "vps", "--yes")
    vps.vectl("create", "vps", *SMALL, "--ip", ip)
    assert "--name" in vps.vectl("undelete", uid, code=4).err
    vps.vectl("undelete", uid, "--name", "old")
    assert sh(vps, "old", "cat /root/data") == "two"
    assert address(vps, "old") != ip
    vps.vectl("delete", "vps", "--yes")
    vps.vectl("rename", "old", "vps")
    vps.vectl("delete", "vps", "--yes")
    assert "uid" in vps.vectl("undelete", "vps", code=4).err


def test_a_stopped_ve_comes_back_stopped(vps: Rack) -> None:
    vps.vectl("stop", "vps", "--force")
    vps.vectl("delete", "vps", "--yes")
    vps.vectl("undelete", "vps")
    assert state(vps, "vps") == "Stopped"
    vps.vectl("start", "vps")
    assert sh(vps, "vps", "cat /root/data") == "two"


def test_a_kept_ve_counts_in_its_hosts_ledger_until_it_is_purged(vps: Rack) -> None:
    sh(vps, "vps", "dd if=/dev/urandom of=/root/big bs=1M count=30 conv=fsync")
    uid = vps.ve("vps")["uid"]

    def committed() -> int:
        host = vps.vectl("host", "show", "h1", "-o", "json").json()
        return int(host["committed"].get("disk_bytes", 0))

    vps.vectl("delete", "vps", "--yes")
    assert 30 << 20 <= int(vps.kept()[0]["status"]["disk_used_bytes"]) <= committed() < 128 << 20
    vps.vectl("purge", "vps", "--yes")
    until(lambda: vps.kept() == [], within_s=60, what="it is removed")
    assert committed() < 30 << 20
    assert left(vps, "h1", uid) == []
    assert vps.vectl("undelete", uid, code=3).out == ""


def test_a_delete_for_good_keeps_nothing(vps: Rack) -> None:
    uid = vps.ve("vps")["uid"]
    vps.vectl("delete", "vps", "--purge", "--yes")
    assert vps.kept() == []
    assert left(vps, "h1", uid) == []


def test_deletes_survive_the_agents_death(vps: Rack) -> None:
    vps.kill("h1-agent")
    vps.vectl("delete", "vps", "--yes", "--detach")
    vps.start_agent("h1")
    until(vps.kept, within_s=60, what="it is deleted and kept")
    vps.kill("h1-agent")
    vps.start_agent("h1")
    vps.until_ready()
    vps.vectl("undelete", "vps")
    assert sh(vps, "vps", "cat /root/data") == "two"


def test_its_time_ends_by_itself(forgetful: Rack) -> None:
    forgetful.vectl("create", "brief", *SMALL)
    uid = forgetful.ve("brief")["uid"]
    forgetful.vectl("delete", "brief", "--yes")
    until(lambda: not forgetful.kept(), within_s=KEEP_S + 60, what="it is purged")
    assert left(forgetful, "h1", uid) == []


def test_its_time_goes_on_while_the_controller_is_away(forgetful: Rack) -> None:
    forgetful.vectl("create", "brief", *SMALL)
    uid = forgetful.ve("brief")["uid"]
    forgetful.vectl("delete", "brief", "--yes")
    forgetful.kill("controller")
    forgetful.start_controller()
    until(lambda: forgetful.vectl("list", code=None).code == 0, within_s=60, what="the controller")
    until(lambda: not forgetful.kept(), within_s=KEEP_S + 60, what="it is purged")
    assert left(forgetful, "h1", uid) == []


def test_what_came_back_in_time_is_not_purged_later(forgetful: Rack) -> None:
    forgetful.vectl("create", "saved", *SMALL)
    forgetful.vectl("create", "brief", *SMALL)
    forgetful.vectl("delete", "saved", "--yes")
    forgetful.vectl("undelete", "saved")
    forgetful.vectl("delete", "brief", "--yes")
    until(lambda: not forgetful.kept(), within_s=KEEP_S + 60, what="the other is purged")
    until_state(forgetful, "saved", "Running")
    forgetful.purge("saved")
