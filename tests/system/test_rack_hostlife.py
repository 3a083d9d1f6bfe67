"""What operators do with hosts, and what holds moves back: on real hosts that are lost, taken out, doubled and come back."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest

from devrack import daemons
from kit.rack import until
from kit.racklife import SMALL, LossyRack, lossy_rack

MOVE_AFTER_S = 12


@pytest.fixture(scope="module")
def shared(host_can_run_ves: None) -> Iterator[LossyRack]:
    with lossy_rack("l") as made:
        yield made


@pytest.fixture
def life(shared: LossyRack) -> Iterator[LossyRack]:
    yield shared
    shared.mend()


def test_a_cordoned_host_takes_no_new_ves_and_says_why_and_keeps_what_runs(life: LossyRack) -> None:
    life.make("runs", "h4", "stay")
    before = life.rack.pids()
    life.vectl("host", "cordon", "h4", "--reason", "new memory")
    assert "new memory" in life.vectl("host", "show", "h4").out
    life.vectl("create", "new", *SMALL, "--prefer", "rack=r4 weight 100")
    assert life.rack.ve("new")["placement"]["host"] != "h4"
    assert "taking no new VEs (cordoned: new memory)" in life.vectl("explain", "new").out
    life.vectl("create", "waits", *SMALL, "--host", "h4", "--detach")
    until(lambda: "new memory" in life.message("waits"), within_s=20, what="show tells the reason")
    assert life.rack.pids()["runs"] == before["runs"]
    life.vectl("host", "uncordon", "h4")
    life.vectl("wait", "waits", "--for", "state=Running", "--timeout", "30s")
    assert life.rack.ve("waits")["placement"]["host"] == "h4"
    assert life.rack.pids()["runs"] == before["runs"]


def test_a_host_vouched_to_be_off_is_moved_at_once_and_is_cordoned_when_it_ran_after_all(
    life: LossyRack,
) -> None:
    doomed, stays = life.make("doomed", "h1"), life.make("stays", "h1", "stay")
    lied = life.make("lied", "h1", "stay")
    refused = life.vectl("host", "fence", "h1", "--powered-off", "--yes", code=4)
    assert "host h1 was heard" in refused.err

    life.lose("h1", spare=lied["uid"])  # it runs on: the operator's word will be wrong
    assert not life.runs_on("h1", doomed["uid"])
    life.until_silent("h1")
    life.vectl("set", "lied", "--on-host-loss", "recreate", "--detach")
    until(lambda: "never" in life.message("lied"), within_s=20, what="silence does not move it")
    until(
        lambda: life.vectl("host", "fence", "h1", "--powered-off", "--yes", code=None).code == 0,
        within_s=20,
        what="it is vouched for",
    )
    assert life.host("h1")["powered_off_by"] == "admin"
    moved = {name: life.until_runs_elsewhere(name, "h1") for name in ("doomed", "lied")}
    for before in (doomed, lied):
        assert moved[before["name"]]["status"]["addresses"] == before["status"]["addresses"]
    assert life.rack.ve("stays")["placement"]["host"] == "h1"
    assert life.runs_on("h1", lied["uid"])

    life.bring_back("h1")
    seen: set[str] = set()

    def it_runs_only_its_own() -> bool:
        seen.update(ve["name"] for ve in (doomed, lied) if life.runs_on("h1", ve["uid"]))
        return life.runs_on("h1", stays["uid"]) and not life.runs_on("h1", lied["uid"])

    until(it_runs_only_its_own, within_s=60, what="h1 runs what is its own alone")
    life.rack.until_ready()
    assert it_runs_only_its_own()
    assert "doomed" not in seen
    host = life.host("h1")
    assert host["cordoned"]
    assert host["cordon_reason"] == "it was vouched to be off while it ran by admin"
    assert not host.get("powered_off_by")
    left = {ve["name"]: ve["status"]["reason"] for ve in life.rack.kept()}
    assert left == {"doomed": "Left", "lied": "Left"}
    assert {"doomed", "lied"} <= set(life.vectl("list", "--deleted").out.split())
    for name in moved:
        assert life.rack.pids()[name][0] == int(moved[name]["status"]["init_pid"])


def test_when_half_of_the_hosts_are_silent_nothing_moves_until_an_operator_says_so(
    life: LossyRack,
) -> None:
    life.make("one", "h1")
    life.make("two", "h2")
    life.lose("h1")
    life.lose("h2")
    stopped = until(
        lambda: str(life.switches().get("moves_stopped", "")),
        within_s=60,
        what="the brake holds",
    )
    assert "2 of 4 hosts fell silent at once (h1, h2)" in stopped
    assert stopped in life.vectl("cluster", "status").out
    for name, host in (("one", "h1"), ("two", "h2")):
        until(
            partial(_says, life, name, f"moves are stopped: {stopped}"),
            within_s=20,
            what=f"show tells why {name} does not move",
        )
        assert "moves are stopped" in life.vectl("events", name).out
        assert life.rack.ve(name)["placement"]["host"] == host

    refused = life.vectl("host", "resume-moves", code=2)
    assert "h1: 1 VEs" in refused.err
    life.vectl("host", "resume-moves", "--yes")
    life.until_runs_elsewhere("one", "h1")
    life.until_runs_elsewhere("two", "h2")
    assert not life.switches().get("moves_stopped")
    assert {life.host(name)["state"] for name in ("h1", "h2")} == {"Silent"}


def test_a_disarmed_cluster_fences_and_moves_nothing_and_is_armed_once_its_hosts_confirm(
    life: LossyRack,
) -> None:
    runs = life.make("runs", "h1")
    before = life.rack.pids()
    life.vectl("cluster", "disarm", "--for", "10m")
    life.until_all_confirm()
    life.link("h1", "down")
    cut_at = time.monotonic()
    life.until_silent("h1")
    until(
        lambda: time.monotonic() > cut_at + MOVE_AFTER_S + 2,
        within_s=30,
        what="it would have been moved",
    )
    assert "the cluster is disarmed" in life.message("runs")
    assert life.rack.ve("runs")["placement"]["host"] == "h1"
    assert life.rack.pids() == before
    assert life.runs_on("h1", runs["uid"])

    life.link("h1", "up")
    life.rack.until_ready()
    life.vectl("cluster", "arm")
    life.until_all_confirm()
    life.until_armed("runs")
    assert life.rack.pids() == before
    life.lose("h1")
    life.until_runs_elsewhere("runs", "h1")


def test_a_host_is_removed_only_without_ves_or_with_their_records_and_may_come_again(
    life: LossyRack,
) -> None:
    life.make("lost", "h4", "stay")
    life.make("deleted", "h4", "stay")
    life.vectl("delete", "--yes", "deleted")
    life.lose("h4")
    life.until_silent("h4")
    refused = until(
        lambda: _holding(life.vectl("host", "remove", "h4", code=4).err),
        within_s=20,
        what="the refusal counts",
    )
    assert "host h4 has 1 VE, 1 root of a deleted VE" in refused
    refused = life.vectl("host", "remove", "h4", "--forget-ves", "--yes", code=4).err
    assert "it may be running there" in refused
    life.vectl("host", "fence", "h4", "--powered-off", "--yes")
    told = life.vectl("host", "remove", "h4", "--forget-ves", "--yes").out
    assert "1 VEs forgotten" in told
    life.vectl("show", "lost", code=3)
    life.vectl("host", "show", "h4", code=3)
    assert life.rack.kept() == []

    life.bring_back("h4")
    until(
        lambda: "was removed from the cluster" in life.rack.log("h4-agent"),
        within_s=30,
        what="it is refused",
    )
    life.vectl("host", "show", "h4", code=3)
    life.vectl("host", "add", "h4")
    life.rack.until_ready()
    life.make("new", "h4", "stay")


def _holding(refusal: str) -> str:
    """Empty while it says that the host was heard just now."""
    return refusal if " has " in refusal else ""


def test_a_second_machine_with_a_copied_certificate_is_refused_and_the_first_goes_on(
    life: LossyRack,
) -> None:
    life.make("runs", "h1")
    before, machine = life.rack.pids(), life.host("h1")["machine_id"]
    life.rack.kill("h4-agent")
    life.start_clone("h1", on="h4")
    refusal = until(
        lambda: "host h1 is running: machine" in life.rack.log("clone"),
        within_s=60,
        what="it is refused",
    )
    assert refusal
    assert machine in life.rack.log("clone")
    assert daemons.pid_of(life.rack.plan, "clone") is not None  # it tries again by itself
    life.vectl("exec", "runs", "--", "true")
    host = life.host("h1")
    assert (host["state"], host["machine_id"]) == ("Ready", machine)
    assert life.rack.pids() == before
    assert "replaced this one" not in life.rack.log("h1-agent")


def test_while_nobody_answers_a_ve_that_died_is_started_again_by_its_host(life: LossyRack) -> None:
    stays, doomed = life.make("stays", "h1", "stay"), life.make("doomed", "h1")
    first = int(life.rack.ve("stays")["status"]["init_pid"])
    life.kill_control_plane()
    until(lambda: not life.runs_on("h1", doomed["uid"]), within_s=30, what="h1 fenced what it must")
    before = life.processes_of("h1", stays["uid"])
    assert first in before
    os.kill(first, signal.SIGKILL)

    def processes_of_another_run() -> set[int]:
        found = life.processes_of("h1", stays["uid"])
        return found - before if first not in found else set()

    again = until(processes_of_another_run, within_s=30, what="it is started again")
    assert "can't reach the controller" in life.vectl("list", code=8).err

    life.rack.start_controller()
    life.until_answers()
    life.rack.until_ready()

    def both_run_where_they_were() -> bool:
        """As the controller sees it now, and not as it was seen before."""
        ves = life.rack.ves()
        return {ve["placement"]["host"] for ve in ves} == {"h1"} and all(
            int(ve["status"].get("init_pid", 0)) in life.processes_of("h1", ve["uid"]) for ve in ves
        )

    until(both_run_where_they_were, within_s=60, what="both run on h1")
    assert life.processes_of("h1", stays["uid"]) & again


def _says(life: LossyRack, name: str, words: str) -> bool:
    return words in life.message(name)
