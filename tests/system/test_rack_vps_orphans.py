"""What a host has and the store forgot, as after a restore from an old copy: kept, and a person decides."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devrack.plan import RackPlan
from kit.rack import Rack, running_rack, until
from kit.rackstore import forget
from kit.vps import address, left, sh

SMALL = ("--image", "busybox", "--memory", "64M", "--cpu", "0.5", "--disk", "128M")


@pytest.fixture(scope="module")
def host(host_can_run_ves: None) -> Iterator[Rack]:
    with running_rack("o", hosts=RackPlan(name="x").hosts[:1]) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Lost:
    """A VE that runs, and of which the store knows nothing any more. `init`: its process, as `Rack.pids` has it."""

    rack: Rack
    uid: str
    init: tuple[int, int]
    ip: str

    def runs_on(self) -> bool:
        pid, _ = self.init
        return Rack._identity(pid) == self.init


@pytest.fixture
def lost(host: Rack) -> Iterator[Lost]:
    """`lost`, beside the VE `known`."""
    host.vectl("create", "lost", *SMALL)
    host.vectl("create", "known", *SMALL)
    sh(host, "lost", "echo one >/root/data")
    ve = host.ve("lost")
    yield lose(host, ve)
    for each in orphans(host):
        host.vectl("orphan", "purge", each["uid"], "--yes")
    until(lambda: not orphans(host), within_s=60, what="orphans are gone")
    host.purge_all()


def lose(rack: Rack, ve: dict[str, Any]) -> Lost:
    """While the controller is away its store goes back to before the VE."""
    init = rack.pids()[ve["name"]]
    rack.kill("controller")
    forget(rack, ve)
    rack.start_controller()
    until(lambda: rack.vectl("list", code=None).code == 0, within_s=60, what="the controller")
    until(lambda: orphans(rack), within_s=60, what="the orphan is reported")
    return Lost(rack, ve["uid"], init, ve["status"]["addresses"][0])


def orphans(rack: Rack) -> list[dict[str, Any]]:
    items = rack.vectl("orphan", "list", "-o", "json").json()["items"]
    assert isinstance(items, list)
    return items


def test_it_is_listed_and_runs_on(lost: Lost) -> None:
    (found,) = orphans(lost.rack)
    assert (found["uid"], found["name"], found["host"]) == (lost.uid, "lost", "h1")
    assert found["status"]["state"] == "Running"
    assert [ve["name"] for ve in lost.rack.ves()] == ["known"]
    assert lost.rack.vectl("show", "lost", code=3).out == ""
    shown = lost.rack.vectl("orphan", "list", "--no-headers").out.split()
    assert shown[:3] == [lost.uid, "h1", "lost"]
    lost.rack.kill("h1-agent")
    lost.rack.start_agent("h1")
    lost.rack.until_ready()
    until(lambda: orphans(lost.rack), within_s=60, what="it is reported again")
    assert lost.runs_on()


def test_adopted_it_is_a_ve_again_and_was_never_stopped(lost: Lost) -> None:
    rack = lost.rack
    rack.vectl("orphan", "adopt", lost.uid)
    assert orphans(rack) == []
    assert rack.pids()["lost"] == lost.init
    assert rack.ve("lost")["uid"] == lost.uid
    assert address(rack, "lost") == lost.ip
    assert sh(rack, "lost", "cat /root/data") == "one"
    rack.vectl("set", "lost", "--memory", "80M")
    assert rack.pids()["lost"] == lost.init
    rack.vectl("restart", "lost", "--force")
    rack.vectl("delete", "lost", "--yes")
    rack.vectl("undelete", "lost")
    assert sh(rack, "lost", "cat /root/data") == "one"


def test_adopted_by_its_name_it_may_have_another_one(lost: Lost) -> None:
    rack = lost.rack
    assert "taken" in rack.vectl("orphan", "adopt", "lost", "--name", "known", code=4).err
    rack.vectl("orphan", "adopt", "lost", "--name", "found")
    assert rack.pids()["found"] == lost.init


def test_whose_address_was_given_away_gets_another_at_its_next_start(lost: Lost) -> None:
    rack = lost.rack
    rack.vectl("create", "thief", *SMALL, "--ip", lost.ip, "--stopped")
    rack.vectl("orphan", "adopt", "lost")
    assert lost.runs_on()
    rack.vectl("restart", "lost", "--force")
    assert address(rack, "lost") != lost.ip
    assert f"{address(rack, 'lost')}/" in sh(rack, "lost", "ip -o -4 addr show eth0")


def test_purged_nothing_of_it_is_left(lost: Lost) -> None:
    rack = lost.rack
    assert "--yes" in rack.vectl("orphan", "purge", lost.uid, code=2).err
    assert lost.runs_on()
    assert "purged from h1" in rack.vectl("orphan", "purge", lost.uid, "--yes").out
    assert orphans(rack) == []
    assert left(rack, "h1", lost.uid) == []
    assert rack.kept() == []
    assert [ve["status"]["state"] for ve in rack.ves()] == ["Running"]


def test_one_of_two_is_named_by_uid_and_what_is_unknown_is_said(lost: Lost) -> None:
    assert "lost" in lost.rack.vectl("orphan", "adopt", "losst", code=3).err
    assert lost.rack.vectl("orphan", "purge", lost.uid, "--host", "h9", "--yes", code=3).out == ""
    assert lost.runs_on()
