"""The drill of docs/operations/disaster.md: the store is lost and restored; nothing happens before the word, the right things after."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devrack import cgroups, daemons
from kit.rack import Rack, running_rack, until

SMALL = ("--image", "busybox", "--cpu", "0.25", "--memory", "48M", "--disk", "256M")


@pytest.fixture(scope="module")
def drilled(host_can_run_ves: None) -> Iterator[Rack]:
    """A rack of its own: it loses its store."""
    with running_rack("d") as made:
        yield made


def runs_on(rack: Rack, host: str, uid: str) -> bool:
    """By the kernel alone."""
    return bool(cgroups.processes(f"{rack.plan.cgroup}/{host}/ve/{uid}"))


def runs(rack: Rack, uid: str) -> bool:
    return any(runs_on(rack, host.name, uid) for host in rack.plan.hosts)


def host_of(rack: Rack, name: str) -> str:
    return str(rack.ve(name)["placement"]["host"])


def orphans(rack: Rack) -> dict[str, str]:
    """Hosts by uid."""
    items = rack.vectl("orphan", "list", "-o", "json").json()["items"]
    return {each["uid"]: each["host"] for each in items}


def armed(rack: Rack, uid: str) -> bool:
    return any(ve["status"].get("armed_generation") for ve in rack.ves() if ve["uid"] == uid)


def lose_the_store(rack: Rack) -> None:
    data = rack.plan.state / "controller" / "etcd" / "data"
    daemons.end(rack.plan, "controller", signal.SIGTERM, within_s=30)
    data.rename(data.with_name(f"data.lost-{time.time_ns()}"))


def restore(rack: Rack, file: Path) -> None:
    config = rack.plan.state / "controller.toml"
    done = subprocess.run(
        [rack.plan.bin / "vecontroller", "restore", file, "--config", config],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "vectl cluster confirm" in done.stdout


def test_a_lost_store_is_restored_and_nothing_changes_before_it_is_confirmed(
    drilled: Rack, tmp_path: Path
) -> None:
    rack, file = drilled, tmp_path / "rack.backup"
    rack.vectl("create", "stays", *SMALL)
    rack.vectl("create", "crashes", *SMALL)
    rack.vectl("create", "deleted", *SMALL)
    rack.vectl("exec", "deleted", "--", "sh", "-c", "echo mine > /root/mark")
    rack.vectl("cluster", "backup", str(file))
    rack.vectl("create", "later", *SMALL)
    rack.vectl("delete", "--yes", "deleted")
    later, deleted = rack.ve("later")["uid"], rack.kept()[0]["uid"]
    before = rack.pids()
    assert (runs(rack, later), runs(rack, deleted)) == (True, False)

    lose_the_store(rack)
    restore(rack, file)
    rack.start_controller()
    rack.until_ready()

    assert "Restored:" in rack.vectl("cluster", "status").out
    until(
        lambda: rack.ve("deleted")["status"].get("reason") == "Unconfirmed",
        within_s=20,
        what="hosts have said that they wait",
    )
    assert rack.vectl("create", "new", *SMALL, code=4).err.count("nobody has confirmed it") == 1
    os.kill(before["crashes"][0], signal.SIGKILL)
    until(
        lambda: rack.pids().get("crashes", before["crashes"]) != before["crashes"],
        within_s=20,
        what="what crashed is restarted",
    )
    time.sleep(3)  # for what must not happen
    assert (runs(rack, later), runs(rack, deleted)) == (True, False)
    assert rack.pids()["stays"] == before["stays"]

    said = rack.vectl("cluster", "confirm", "--yes").err
    assert "start: 1 (default/deleted)" in said
    assert "nobody asks for them: 1 (default/later)" in said
    rack.vectl("wait", "deleted", "--for", "state=Running", "--timeout", "30s")
    assert rack.vectl("exec", "deleted", "--", "cat", "/root/mark").out.strip() == "mine"
    assert runs(rack, later)
    rack.vectl("orphan", "adopt", later)
    rack.vectl("wait", "later", "--for", "state=Running", "--timeout", "30s")
    after = rack.pids()
    assert (after["stays"], after["later"]) == (before["stays"], before["later"])
    rack.vectl("create", "new", *SMALL)


def test_what_was_moved_since_the_backup_never_runs_where_it_was_before(
    drilled: Rack, tmp_path: Path
) -> None:
    rack, file = drilled, tmp_path / "rack.backup"
    rack.vectl("create", "moves", *SMALL, "--on-host-loss", "recreate")
    uid, was_on = rack.ve("moves")["uid"], host_of(rack, "moves")
    until(lambda: armed(rack, uid), within_s=20, what="it is armed")
    rack.vectl("cluster", "backup", str(file))
    rack.run_in(was_on, "ip", "link", "set", "eth0", "down")
    until(lambda: host_of(rack, "moves") != was_on, within_s=60, what="it is moved")
    rack.vectl("wait", "moves", "--for", "state=Running", "--timeout", "30s")
    rack.vectl("exec", "moves", "--", "sh", "-c", "echo new > /root/mark")
    now_on = host_of(rack, "moves")
    rack.run_in(was_on, "ip", "link", "set", "eth0", "up")
    rack.until_ready()

    lose_the_store(rack)
    until(lambda: not runs(rack, uid), within_s=30, what="its host's lease is over")
    restore(rack, file)
    rack.start_controller()
    rack.until_ready()
    assert host_of(rack, "moves") == was_on
    until(lambda: orphans(rack) == {uid: now_on}, within_s=20, what="its host has said so")
    time.sleep(3)  # for what must not happen
    assert not runs(rack, uid)

    said = rack.vectl("cluster", "confirm", "--yes").err
    assert f"{now_on}: stay here, where they are: 1 (default/moves)" in said
    rack.vectl("wait", "moves", "--for", "state=Running", "--timeout", "30s")
    assert host_of(rack, "moves") == now_on
    assert rack.vectl("exec", "moves", "--", "cat", "/root/mark").out.strip() == "new"
    assert [h.name for h in rack.plan.hosts if runs_on(rack, h.name, uid)] == [now_on]
