"""Three controllers on an etcd cluster of three: whichever part is lost, VEs run on, and vectl works without being told."""

import signal
from collections.abc import Iterator

import pytest

from devrack import daemons
from kit.rack import Rack, running_rack, until
from kit.rackleaders import cut_off, etcd_led_by, led_by, mend, send

SMALL = ("--image", "busybox", "--memory", "48M", "--cpu", "0.25")
TWELVE = [f"twelve-{i}" for i in range(12)]


@pytest.fixture(scope="module")
def three(host_can_run_ves: None) -> Iterator[Rack]:
    with running_rack("k", controllers=3) as rack:
        rack.vectl("create", "twelve", "--count", "12", *SMALL)
        yield rack


@pytest.fixture(autouse=True)
def whole(three: Rack) -> None:
    """Every part runs, and every host is Ready."""
    mend(three)
    three.until_ready()


def twelve_run_on(rack: Rack, before: dict[str, tuple[int, int]]) -> None:
    """The same processes, and the controller sees them Running."""
    rack.until_ready()
    until(
        lambda: all(ve["status"]["state"] == "Running" for ve in rack.ves()),
        within_s=30,
        what="all are seen Running",
    )
    after = rack.pids()
    assert {name: after[name] for name in TWELVE} == {name: before[name] for name in TWELVE}


def is_done(rack: Rack, name: str) -> None:
    """What was asked while a part was being lost is so; then it is undone."""
    rack.vectl("wait", name, "--for", "state=Running", "--timeout", "60s")
    rack.vectl("delete", "--purge", "--yes", name)


def test_the_loss_of_the_leader_is_nobodys_concern(three: Rack) -> None:
    before = three.pids()
    leader, epoch = led_by(three)
    three.kill(leader.daemon)
    three.vectl("create", "meanwhile", *SMALL, "--timeout", "60s")
    found, later = led_by(three)
    assert found != leader
    assert later > epoch
    twelve_run_on(three, before)
    is_done(three, "meanwhile")


def test_the_loss_of_etcds_leader_is_nobodys_concern(three: Rack) -> None:
    before = three.pids()
    three.kill(etcd_led_by(three).etcd)
    three.vectl("create", "meanwhile", *SMALL, "--timeout", "60s")
    twelve_run_on(three, before)
    is_done(three, "meanwhile")


def test_both_leaders_may_be_lost_at_once(three: Rack) -> None:
    before = three.pids()
    leader, _ = led_by(three)
    send(three, leader.daemon, signal.SIGKILL)
    three.kill(etcd_led_by(three).etcd)
    three.vectl("create", "meanwhile", *SMALL, "--timeout", "60s")
    assert led_by(three)[0] != leader
    twelve_run_on(three, before)
    is_done(three, "meanwhile")


def test_a_machine_with_both_leaders_may_vanish_without_a_word(three: Rack) -> None:
    before = three.pids()
    leader, _ = led_by(three)
    if etcd_led_by(three) != leader:
        three.kill(etcd_led_by(three).etcd)
        until(lambda: etcd_led_by(three), within_s=30, what="etcd has a leader again")
        mend(three)
    cut_off(three, leader)
    three.vectl("create", "meanwhile", *SMALL, "--timeout", "60s")
    assert led_by(three)[0] != leader
    twelve_run_on(three, before)
    is_done(three, "meanwhile")


def test_a_leader_that_stands_still_is_replaced_and_changes_nothing_when_it_wakes(
    three: Rack,
) -> None:
    before = three.pids()
    leader, epoch = led_by(three)
    send(three, leader.daemon, signal.SIGSTOP)
    three.vectl("create", "meanwhile", *SMALL, "--timeout", "60s")
    three.vectl("stop", "meanwhile", "--timeout", "60s")
    found, later = led_by(three)
    assert found != leader
    assert later > epoch
    send(three, leader.daemon, signal.SIGCONT)
    until(
        lambda: daemons.pid_of(three.plan, leader.daemon) is None,
        within_s=30,
        what="the old leader ends",
    )
    assert led_by(three) == (found, later)
    assert three.ve("meanwhile")["status"]["state"] == "Stopped"
    twelve_run_on_but(three, before)
    three.vectl("delete", "--purge", "--yes", "meanwhile")


def twelve_run_on_but(rack: Rack, before: dict[str, tuple[int, int]]) -> None:
    """As `twelve_run_on`, with others that are stopped."""
    rack.until_ready()
    after = {
        ve["name"]: Rack._identity(int(ve["status"]["init_pid"]))
        for ve in rack.ves()
        if ve["name"] in TWELVE
    }
    assert after == {name: before[name] for name in TWELVE}


def test_what_was_asked_of_a_lost_leader_is_done_by_the_next(three: Rack) -> None:
    before = three.pids()
    leader, _ = led_by(three)
    three.vectl("create", "meanwhile", *SMALL, "--detach")
    three.kill(leader.daemon)
    is_done(three, "meanwhile")
    twelve_run_on(three, before)


def test_without_any_controller_and_etcd_ves_run_on(three: Rack) -> None:
    before = three.pids()
    for each in three.plan.controllers:
        three.kill(each.daemon)
        three.kill(each.etcd)
    failed = three.vectl("list", code=8)
    assert "can't reach any controller" in failed.err
    mend(three)
    twelve_run_on(three, before)
