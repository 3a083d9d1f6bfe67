"""The life of a VE through vectl: stop, freeze, rename, clone, rebuild, and what its guest types."""

import subprocess
from collections.abc import Iterator

import pytest

from kit.rack import Rack, until
from kit.vps import address, event_of, init_pid, sh, state, tried, unrestarted, until_state

SMALL = ("--image", "busybox", "--memory", "64M", "--cpu", "0.5", "--disk", "256M")
BEAT = "n=0; while :; do n=$((n+1)); echo $n >/tmp/beat; usleep 20000; done"


@pytest.fixture
def vps(clean: Rack) -> Iterator[Rack]:
    """A rack with one VE, `vps`, on h1."""
    clean.vectl("create", "vps", *SMALL, "--host", "h1")
    yield clean


def test_a_stop_lets_init_shut_down_by_itself(vps: Rack) -> None:
    sh(vps, "vps", "echo '::shutdown:/bin/touch /root/clean' >>/etc/inittab; kill -HUP 1")
    vps.vectl("stop", "vps")
    vps.vectl("start", "vps")
    assert sh(vps, "vps", "ls /root") == "clean"


def test_a_stop_of_what_does_not_end_is_a_kill_after_the_timeout(clean: Rack) -> None:
    deaf = "trap '' TERM INT HUP QUIT PWR USR1 USR2; while :; do sleep 1; done"
    clean.vectl("create", "deaf", *SMALL, "--command", f'sh -c "{deaf}"')
    clean.vectl("stop", "deaf", "--timeout", "1s")
    assert state(clean, "deaf") == "Stopped"


def test_a_frozen_ve_stands_still_and_goes_on_where_it_was(vps: Rack) -> None:
    with unrestarted(vps, "vps"):
        sh(vps, "vps", f"setsid sh -c '{BEAT}' >/dev/null 2>&1 </dev/null &")
        until(lambda: sh(vps, "vps", "cat /tmp/beat"), within_s=30, what="a first beat")
        vps.vectl("freeze", "vps")
        assert state(vps, "vps") == "Frozen"
        root = vps.plan.host_state(vps.host("h1")) / "pool" / "ve" / vps.ve("vps")["uid"]
        beat = vps.run_in_host("h1", "cat", f"{root}/tmp/beat").strip()
        refused = tried(vps, "vps", "true")
        assert refused.code == 125
        assert "vectl thaw vps" in refused.err
        assert vps.run_in_host("h1", "cat", f"{root}/tmp/beat").strip() == beat
        vps.vectl("thaw", "vps")
        until(lambda: sh(vps, "vps", "cat /tmp/beat") != beat, within_s=30, what="a beat")
    assert state(vps, "vps") == "Running"


def test_a_frozen_ve_stays_so_while_its_agent_is_restarted_and_can_be_stopped(vps: Rack) -> None:
    with unrestarted(vps, "vps"):
        vps.vectl("freeze", "vps")
        vps.kill("h1-agent")
        vps.start_agent("h1")
        vps.until_ready()
        until_state(vps, "vps", "Frozen")
    vps.vectl("stop", "vps", "--timeout", "5s")
    assert state(vps, "vps") == "Stopped"
    assert "start it first" in vps.vectl("freeze", "vps", code=4).err
    vps.vectl("start", "vps")
    assert state(vps, "vps") == "Running"


def test_a_renamed_ve_runs_on_and_has_its_name_inside_at_its_next_start(vps: Rack) -> None:
    uid = vps.ve("vps")["uid"]
    before = vps.pids()["vps"]
    vps.vectl("rename", "vps", "shop")
    assert vps.pids() == {"shop": before}
    assert vps.vectl("show", "vps", code=3).out == ""
    assert vps.ve("shop")["uid"] == uid
    vps.vectl("create", "other", *SMALL, "--stopped")
    assert "shop" in vps.vectl("rename", "other", "shop", code=4).err
    vps.vectl("restart", "shop", "--force")
    assert sh(vps, "shop", "hostname") == "shop"


def test_a_clone_has_its_own_copy_address_and_identity(vps: Rack) -> None:
    sh(vps, "vps", "echo one >/root/data")
    with unrestarted(vps, "vps"):
        vps.vectl("clone", "vps", "twin", "--memory", "96M")
    assert vps.ve("twin")["placement"]["host"] == "h1"
    assert sh(vps, "twin", "hostname; cat /root/data").split() == ["twin", "one"]
    assert address(vps, "twin") != address(vps, "vps")
    assert f"{address(vps, 'twin')}/" in sh(vps, "twin", "ip -o -4 addr show eth0")
    assert sh(vps, "twin", "grep MemTotal /proc/meminfo").split()[1] == str(96 << 10)
    sh(vps, "twin", "echo two >/root/data")
    assert sh(vps, "vps", "cat /root/data") == "one"
    vps.purge("vps")
    assert sh(vps, "twin", "cat /root/data") == "two"


def test_a_clone_of_a_snapshot_is_as_it_was_then(vps: Rack) -> None:
    sh(vps, "vps", "echo then >/root/data")
    vps.vectl("snapshot", "vps", "mark")
    sh(vps, "vps", "echo now >/root/data")
    vps.vectl("clone", "vps", "past", "--snapshot", "mark")
    assert sh(vps, "past", "cat /root/data") == "then"
    refused = vps.vectl("clone", "vps", "never", "--snapshot", "nosuch", code=3)
    assert "nosuch" in refused.err


def test_a_rebuild_gives_a_new_root_under_the_same_name_and_address(vps: Rack) -> None:
    before = (vps.ve("vps")["uid"], address(vps, "vps"))
    sh(vps, "vps", "echo lost >/root/data")
    assert "--yes" in vps.vectl("rebuild", "vps", code=2).err
    vps.vectl("rebuild", "vps", "--yes")
    assert (vps.ve("vps")["uid"], address(vps, "vps")) == before
    assert sh(vps, "vps", "ls /root") == ""
    assert sh(vps, "vps", "hostname") == "vps"


def test_a_rebuild_takes_another_image(vps: Rack, tmp_path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    source = vps.plan.state / "busybox.tar"
    subprocess.run(["tar", "-xf", str(source), "-C", str(root)], check=True)
    (root / "etc/edition").write_text("second\n")
    vps.vectl("image", "import", "second", str(root))
    vps.vectl("rebuild", "vps", "--image", "second", "--yes")
    assert sh(vps, "vps", "cat /etc/edition") == "second"
    assert vps.ve("vps")["spec"]["image"] == "second"
    assert "used" in vps.vectl("image", "delete", "second", code=4).err
    vps.purge("vps")
    vps.vectl("image", "delete", "second")


def test_a_reboot_typed_inside_boots_it_again(vps: Rack) -> None:
    before = init_pid(vps, "vps")
    tried(vps, "vps", "reboot")
    until(lambda: init_pid(vps, "vps") not in {0, before}, within_s=60, what="it boots again")
    until_state(vps, "vps", "Running")
    kind, text = event_of(vps, "vps", "Rebooted")
    assert (kind, text) == ("Normal", "it rebooted itself; started again")


def test_a_poweroff_typed_inside_keeps_it_off_until_its_user_starts_it(vps: Rack) -> None:
    tried(vps, "vps", "poweroff")
    until_state(vps, "vps", "Stopped")
    assert vps.ve("vps")["status"]["reason"] == "PoweredOff"
    vps.kill("h1-agent")
    vps.start_agent("h1")
    vps.until_ready()
    vps.vectl("set", "vps", "--memory", "80M")
    assert state(vps, "vps") == "Stopped"
    vps.vectl("start", "vps")
    assert sh(vps, "vps", "hostname") == "vps"


def test_an_init_that_exits_is_told_with_its_code_and_comes_back(clean: Rack) -> None:
    clean.vectl("create", "exits", *SMALL, "--command", 'sh -c "sleep 6; exit 3"')
    kind, text = event_of(clean, "exits", "Crashed")
    assert (kind, text) == ("Warning", "init exited with 3; restarted")
    assert int(clean.ve("exits")["status"]["restarts"]) >= 1


def test_a_ve_that_exits_at_once_is_tried_again_with_growing_pauses_that_are_told(
    clean: Rack,
) -> None:
    clean.vectl("create", "loops", *SMALL, "--command", 'sh -c "usleep 300000; exit 7"', "--detach")

    def tries() -> int:
        return int(clean.ve("loops")["status"].get("restarts", 0))

    until(lambda: tries() >= 3, within_s=60, what="a third restart")
    until(
        lambda: clean.ve("loops")["status"].get("reason") == "ExitedAtOnce",
        within_s=30,
        what="the pause",
    )
    status = clean.ve("loops")["status"]
    assert status["state"] == "Failed"
    assert "init exited with 7 right after its start" in status["message"]
    assert "times in a row; next try at" in status["message"]
    clean.vectl("stop", "loops", "--force")
    assert state(clean, "loops") == "Stopped"


def test_a_kill_for_memory_is_told_and_counted_and_the_ve_runs_on(vps: Rack) -> None:
    with unrestarted(vps, "vps"):
        code = tried(vps, "vps", "dd if=/dev/zero of=/dev/null bs=200M count=1").code
        assert code in {1, 137}
        kind, text = event_of(vps, "vps", "OOMKilled")
    assert kind == "Warning"
    assert "out of its memory of 64M" in text
    assert int(vps.ve("vps")["status"]["oom_kills"]) >= 1
