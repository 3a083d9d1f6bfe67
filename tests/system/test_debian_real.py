"""Debian with systemd in a VE, on a rack's host with the product's own configuration."""

import json

import pytest

from devrack.plan import RackPlan
from kit.debianimage import debian_image
from kit.rack import running_rack, until

pytestmark = pytest.mark.timeout(1200)
DEGRADED_BY: tuple[str, ...] = ()
"""Units that may fail: those that docs/reference/images.md lists. There are none."""


@pytest.fixture(scope="module")
def rack():
    image = debian_image()
    with running_rack("e", hosts=RackPlan(name="x").hosts[:1]) as made:
        made.vectl("image", "import", "debian:12", str(image), timeout_s=300)
        made.vectl("create", "deb", "--image", "debian:12", "--memory", "512M", "--disk", "2G")
        yield made


@pytest.fixture
def deb(rack):
    """The VE, up and settled; gives what runs a shell line in it."""
    if rack.ve("deb")["status"]["state"] != "Running":
        rack.vectl("start", "deb")
    settle(rack)

    def run(line, *, code=0):
        return rack.vectl("exec", "deb", "--", "sh", "-c", line, code=code)

    return run


def settle(rack):
    def asked():
        line = "systemctl is-system-running --wait"
        return rack.vectl("exec", "deb", "--", "sh", "-c", line, code=None).out.strip()

    return until(lambda: asked() in {"running", "degraded"}, within_s=60, what="Debian is up")


def pid(rack):
    return rack.ve("deb")["status"]["init_pid"]


def test_it_boots_to_running_with_no_unit_failed(deb):
    failed = deb("systemctl list-units --failed --output=json").out
    assert [unit["unit"] for unit in json.loads(failed)] == list(DEGRADED_BY)
    assert deb("systemctl is-system-running").out.strip() == "running"


def test_it_has_its_name_its_address_and_a_way_out(deb, rack):
    assert deb("hostname; cat /etc/hostname").out.split() == ["deb", "deb"]
    address = rack.ve("deb")["status"]["addresses"][0]
    assert f"{address}/16" in deb("ip -o -4 addr show eth0").out
    assert "default via 10.66.0.1" in deb("ip route").out
    deb("ping -c 1 -W 5 10.66.0.1")


def test_its_journal_works(deb):
    deb("logger -t verack-test 'hello journal'; journalctl --sync")
    assert "hello journal" in deb("journalctl -b -t verack-test --no-pager").out


def test_users_can_be_made_and_become(deb):
    deb("id someone 2>&1 || useradd --create-home --shell /bin/bash someone")
    said = deb("su - someone -c 'id -un; pwd; touch mine && stat -c %U mine'").out.split()
    assert said == ["someone", "/home/someone", "someone"]
    assert deb("su someone -c 'cat /etc/shadow'", code=None).code != 0


def test_systemd_makes_cgroups_of_its_own_in_the_ve(deb):
    line = (
        "systemd-run --quiet --pipe --wait -p MemoryMax=48M -p TasksMax=33 -p MemoryAccounting=yes"
    )
    said = deb(
        f"{line} --unit=vt-limits sh -c 'cat /proc/self/cgroup; "
        "cat /sys/fs/cgroup/memory/system.slice/vt-limits.service/memory.limit_in_bytes "
        "/sys/fs/cgroup/system.slice/vt-limits.service/memory.max 2>&1; true'"
    ).out
    assert "/system.slice/vt-limits.service" in said
    assert str(48 << 20) in said


def test_units_get_the_protection_that_they_ask_for(deb):
    line = "systemd-run --quiet --pipe --wait -p PrivateTmp=yes -p ProtectSystem=strict -p PrivateDevices=yes"
    assert "Read-only" in deb(f"{line} sh -c 'touch /usr/x' 2>&1", code=None).out
    deb(f"{line} true")


def test_a_stop_is_a_clean_shutdown(deb, rack):
    deb("journalctl --sync")
    rack.vectl("stop", "deb")
    assert rack.ve("deb")["status"]["state"] == "Stopped"
    rack.vectl("start", "deb")
    settle(rack)
    before = deb("journalctl -b -1 --no-pager -o cat").out
    assert "Reached target" in before
    assert "Shutting down." in before


def test_a_reboot_typed_inside_boots_it_again(deb, rack):
    before, restarts = pid(rack), rack.ve("deb")["status"]["restarts"]
    boots = len(deb("journalctl --list-boots --no-pager").out.splitlines())
    rack.vectl("exec", "deb", "--", "reboot", code=None)
    until(
        lambda: pid(rack) not in {0, before} and rack.ve("deb")["status"]["state"] == "Running",
        within_s=60,
        what="rebooted",
    )
    settle(rack)
    assert len(deb("journalctl --list-boots --no-pager").out.splitlines()) == boots + 1
    assert deb("systemctl is-system-running").out.strip() == "running"
    assert rack.ve("deb")["status"]["restarts"] >= restarts


def test_a_poweroff_typed_inside_keeps_it_off_until_it_is_started(deb, rack):
    rack.vectl("exec", "deb", "--", "poweroff", code=None)
    until(lambda: rack.ve("deb")["status"]["state"] == "Stopped", within_s=60, what="off")
    rack.kill("h1-agent")
    rack.start_agent("h1")
    until(
        lambda: rack.vectl("host", "show", "h1", "-o", "json").json()["state"] == "Ready",
        within_s=60,
        what="the agent is back",
    )
    assert rack.ve("deb")["status"]["state"] == "Stopped"
    rack.vectl("start", "deb")
    settle(rack)
