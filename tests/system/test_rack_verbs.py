"""What vectl does to VEs that exist, on a real rack: limits, freezing, names, roots, and the way back from a delete."""

import re
from pathlib import Path

import pytest

from kit.rack import Rack, until


@pytest.fixture
def web(clean: Rack) -> str:
    clean.vectl(
        "create", "web", "--image", "busybox", "--host", "h2", "--cpu", "0.5", "--memory", "96M"
    )
    return "web"


def inside(rack: Rack, name: str, *command: str, code: int = 0) -> str:
    return rack.vectl("exec", name, "--", *command, code=code).out


def pid_of(rack: Rack, name: str) -> int:
    return int(rack.ve(name)["status"]["init_pid"])


def test_limits_change_while_it_runs(clean: Rack, web: str) -> None:
    before = pid_of(clean, web)
    clean.vectl("set", web, "--cpu", "2", "--memory", "128M", "--net-out", "10M", "--pids", "64")
    found = clean.ve(web)
    assert found["status"]["observed_generation"] == found["generation"]
    assert pid_of(clean, web) == before
    assert int(inside(clean, web, "nproc")) == 2


def test_what_is_in_use_is_not_taken_away_but_by_a_restart(clean: Rack, web: str) -> None:
    inside(clean, web, "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=60")
    refused = clean.vectl("set", web, "--memory", "24M", code=4)
    assert "LimitsRefused" in refused.err
    assert "--restart" in refused.err
    clean.vectl("set", web, "--memory", "24M", "--restart", "--timeout", "1s")
    assert clean.ve(web)["status"]["state"] == "Running"


def test_more_than_its_host_has_is_refused_with_numbers(clean: Rack, web: str) -> None:
    refused = clean.vectl("set", web, "--memory", "900G", code=5)
    assert re.search(r"host h2 has too little memory \(free .*, wanted 899.9G\)", refused.err)
    assert clean.ve(web)["generation"] == "1"


def test_address_and_environment_follow_a_restart(clean: Rack, web: str) -> None:
    refused = clean.vectl("set", web, "--ip", "10.66.7.7", "--env", "MODE=fast", code=4)
    assert "--restart" in refused.err
    clean.vectl(
        "set", web, "--ip", "10.66.7.7", "--env", "MODE=fast", "--restart", "--timeout", "1s"
    )
    assert "10.66.7.7/16" in inside(clean, web, "ip", "addr")
    assert "MODE=fast" in inside(clean, web, "sh", "-c", "tr '\\0' '\\n' < /proc/1/environ")


def test_a_frozen_ve_stands_still_and_goes_on(clean: Rack, web: str) -> None:
    before = pid_of(clean, web)
    clean.vectl("freeze", web)
    assert clean.ve(web)["status"]["state"] == "Frozen"
    clean.vectl("exec", web, "--", "true", code=125)
    clean.vectl("thaw", web)
    assert pid_of(clean, web) == before
    inside(clean, web, "true")


def test_a_name_changes_at_once_and_the_host_name_at_the_next_start(clean: Rack, web: str) -> None:
    clean.vectl("rename", web, "shop")
    clean.vectl("show", web, code=3)
    clean.vectl("restart", "shop", "--force")
    assert inside(clean, "shop", "hostname").strip() == "shop"


def test_a_clone_has_the_files_of_its_source_and_goes_its_own_way(clean: Rack, web: str) -> None:
    inside(clean, web, "sh", "-c", "echo one > /root/mark")
    clean.vectl("clone", web, "copy", "--memory", "48M")
    assert inside(clean, "copy", "cat", "/root/mark") == "one\n"
    inside(clean, "copy", "sh", "-c", "echo two > /root/mark")
    assert inside(clean, web, "cat", "/root/mark") == "one\n"
    one, two = clean.ve(web), clean.ve("copy")
    assert one["placement"]["host"] == two["placement"]["host"] == "h2"
    assert one["status"]["addresses"] != two["status"]["addresses"]


def test_a_rebuilt_ve_has_a_new_root_and_its_address(clean: Rack, web: str) -> None:
    inside(clean, web, "sh", "-c", "echo one > /root/mark")
    before = clean.ve(web)
    clean.vectl("rebuild", web, "--yes", "--timeout", "1s")
    inside(clean, web, "cat", "/root/mark", code=1)
    after = clean.ve(web)
    assert after["status"]["addresses"] == before["status"]["addresses"]
    assert after["uid"] == before["uid"]


def test_a_deleted_ve_comes_back_with_its_files(clean: Rack, web: str) -> None:
    inside(clean, web, "sh", "-c", "echo one > /root/mark; sync")
    uid = clean.ve(web)["uid"]
    clean.vectl("delete", web, "--yes")
    [kept] = [
        ve for ve in clean.vectl("list", "--deleted", "-o", "json").json()["items"]
        if ve["uid"] == uid
    ]  # fmt: skip
    assert kept["status"]["state"] == "Deleted"
    assert int(kept["status"]["disk_used_bytes"]) > 0
    assert list(Path("/sys/fs/cgroup").glob(f"*/{clean.plan.cgroup}/h2/*/{uid}")) == []
    assert uid.replace("-", "")[:12] not in clean.run_in("h2", "ip", "link")
    clean.vectl("undelete", web)
    assert clean.ve(web)["uid"] == uid
    assert inside(clean, web, "cat", "/root/mark") == "one\n"


def test_a_purged_ve_is_gone_for_good(clean: Rack, web: str) -> None:
    uid = clean.ve(web)["uid"]
    clean.vectl("delete", web, "--yes")
    clean.vectl("purge", uid, "--yes")
    until(
        lambda: uid not in clean.vectl("list", "--deleted", "-o", "json").out,
        within_s=10,
        what="its host has removed it",
    )
    clean.vectl("undelete", uid, code=3)
    state = clean.plan.host_state(clean.host("h2"))
    assert [str(path) for path in (state / "agent").rglob(f"*{uid}*")] == []
