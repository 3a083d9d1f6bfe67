"""Groups on the local rack: made, scaled, changed live and by a new image, stopped when it does not work, and kept over a crash."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.busyboxroot import make_busybox_root
from kit.rack import Rack, until

NAME = "crew"
SPEC = 'image: {image}, cpu: 0.1, memory: {memory}, disk: 64M, pids: 64, spread: ["app=crew over host"]'
GROUP = """\
kind: Group
metadata: {{name: crew}}
spec:
  replicas: {replicas}
  min_ready: 1s
  progress_deadline: {deadline}
  template: {{labels: {{app: crew}}, spec: {{{spec}}}}}
"""


class Crew:
    """One group on the rack."""

    def __init__(self, rack: Rack, folder: Path) -> None:
        self.rack = rack
        self.file = folder / "crew.yaml"

    def apply(
        self,
        replicas: int = 3,
        *,
        image: str = "busybox",
        memory: str = "32M",
        deadline: str = "60s",
        code: int | None = 0,
        detach: bool = False,
    ) -> str:
        spec = SPEC.format(image=image, memory=memory)
        self.file.write_text(GROUP.format(replicas=replicas, spec=spec, deadline=deadline))
        more = ("--detach",) if detach else ("--timeout", "90s")
        ran = self.rack.vectl("apply", "-f", str(self.file), *more, code=code)
        return ran.out + ran.err

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.rack.vectl("group", "show", NAME, "-o", "json").json()
        return found

    def members(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.shown()["status"]["members"]}

    def available(self) -> int:
        return int(self.shown()["status"]["available"])

    def state(self) -> str:
        found: str = self.shown()["status"]["state"]
        return found

    def started(self) -> dict[str, str]:
        """When each VE began to run."""
        return {ve["name"]: ve["status"]["started_at"] for ve in self.ves()}

    def ves(self) -> list[dict[str, Any]]:
        return [ve for ve in self.rack.ves() if ve["group"] == NAME]


@pytest.fixture
def crew(clean: Rack, tmp_path: Path) -> Iterator[Crew]:
    yield Crew(clean, tmp_path)
    clean.vectl("group", "delete", NAME, "--purge", "--yes", code=None)


def import_image(rack: Rack, folder: Path, name: str, *, init: str = "") -> None:
    """`init`: a script in place of /sbin/init."""
    root, tar = folder / name, folder / f"{name}.tar"
    make_busybox_root(root)
    (root / "etc" / "release").write_text(name)
    if init:
        (root / "sbin" / "init").unlink()
        (root / "sbin" / "init").write_text(init)
        (root / "sbin" / "init").chmod(0o755)
    subprocess.run(["tar", "-C", str(root), "-cf", str(tar), "."], check=True)
    rack.vectl("image", "import", name, str(tar))


@pytest.mark.timeout(300)
def test_a_group_is_made_scaled_up_and_down_and_deleted_with_its_ves(crew: Crew) -> None:
    assert "3 of 3 available" in crew.apply(3)
    assert crew.rack.vectl("diff", "-f", str(crew.file)).out == ""
    assert len({each["host"] for each in crew.members().values()}) == 3
    crew.rack.vectl("group", "scale", NAME, "5")
    assert sorted(crew.members()) == [f"{NAME}-{number}" for number in range(5)]
    crew.rack.vectl("group", "scale", NAME, "--replicas", "2")
    assert sorted(crew.members()) == [f"{NAME}-0", f"{NAME}-1"]
    kept = [ve["name"] for ve in crew.rack.kept() if ve["name"].startswith(NAME)]
    assert sorted(kept) == [f"{NAME}-2", f"{NAME}-3", f"{NAME}-4"]
    crew.rack.vectl("undelete", f"{NAME}-4")
    assert crew.rack.ve(f"{NAME}-4")["group"] == "", "it belongs to itself now"
    refused = crew.rack.vectl("set", f"{NAME}-0", "--memory", "64M", code=4)
    assert f"belongs to group {NAME}" in refused.err
    crew.rack.vectl("delete", f"{NAME}-0", "--purge", "--yes")
    crew.rack.vectl("group", "rollout", "status", NAME)
    assert crew.available() == 2, "what was deleted is made again"
    gone = crew.rack.vectl("delete", "-f", str(crew.file), "--purge", "--yes")
    assert gone.out == f"group/{NAME} deleted\n"
    assert crew.ves() == []
    assert crew.rack.vectl("group", "list", "-o", "name").out == ""
    assert crew.rack.ve(f"{NAME}-4")["status"]["state"] == "Running"


@pytest.mark.timeout(300)
def test_more_memory_gets_to_all_ves_without_a_restart(crew: Crew) -> None:
    crew.apply(3)
    before = crew.started()
    assert "3 of revision 2" in crew.apply(3, memory="48M")
    assert crew.started() == before
    assert {ve["spec"]["memory_bytes"] for ve in crew.ves()} == {str(48 << 20)}
    limit = crew.rack.vectl("exec", f"{NAME}-0", "--", "head", "-1", "/proc/meminfo").out
    assert limit.split() == ["MemTotal:", str(48 << 10), "kB"]


@pytest.mark.timeout(300)
def test_a_new_image_is_rolled_out_one_ve_at_a_time_and_names_and_addresses_stay(
    crew: Crew, tmp_path: Path
) -> None:
    import_image(crew.rack, tmp_path, "crew-two")
    crew.apply(3)
    before = {ve["name"]: (ve["uid"], ve["status"]["addresses"]) for ve in crew.ves()}
    crew.apply(3, image="crew-two", detach=True)
    fewest = 3

    def rolled() -> bool:
        nonlocal fewest
        fewest = min(fewest, crew.available())
        return crew.state() == "Ready"

    until(rolled, within_s=90, what="the rollout")
    assert fewest == 2, "one at a time"
    assert {ve["name"]: (ve["uid"], ve["status"]["addresses"]) for ve in crew.ves()} == before
    for name in before:
        assert crew.rack.vectl("exec", name, "--", "cat", "/etc/release").out == "crew-two"


@pytest.mark.timeout(300)
def test_an_image_that_does_not_work_takes_down_one_and_undo_brings_it_back(
    crew: Crew, tmp_path: Path
) -> None:
    import_image(crew.rack, tmp_path, "crew-bad", init="#!/bin/sh\nexit 1\n")
    crew.apply(3)
    said = crew.apply(3, image="crew-bad", deadline="8s", code=8)
    assert "no further VE became available with revision 2 for 8 s: crew-2: " in said
    found = crew.members()
    assert [found[name]["revision"] for name in sorted(found)] == ["1", "1", "2"]
    assert crew.available() == 2
    crew.rack.vectl("delete", f"{NAME}-1", "--purge", "--yes")
    until(lambda: crew.available() == 2, within_s=30, what="the deleted one, as it worked")
    assert crew.members()[f"{NAME}-1"]["revision"] == "1"
    assert "3 of 3 available" in crew.rack.vectl("group", "rollout", "undo", NAME).out
    history = crew.rack.vectl("group", "rollout", "history", NAME, "--no-headers").out.splitlines()
    assert [line.split()[0] for line in history] == ["2", "3"]
    assert "undo to 1" in history[1]


@pytest.mark.timeout(300)
def test_a_paused_group_changes_nobody_until_it_is_resumed(crew: Crew) -> None:
    crew.apply(2)
    crew.rack.vectl("group", "rollout", "pause", NAME)
    assert "0 of revision 2" in crew.apply(3, memory="48M")
    found = crew.members()
    assert {name: each["revision"] for name, each in found.items()} == {
        f"{NAME}-{number}": "1" for number in range(len(found))
    }
    assert "3 of revision 2" in crew.rack.vectl("group", "rollout", "resume", NAME).out


@pytest.mark.timeout(300)
def test_a_rollout_goes_on_after_its_controller_was_killed_and_makes_nothing_twice(
    crew: Crew, tmp_path: Path
) -> None:
    import_image(crew.rack, tmp_path, "crew-two")
    crew.apply(3)
    uids = {ve["name"]: ve["uid"] for ve in crew.ves()}
    crew.apply(4, image="crew-two", detach=True)
    until(lambda: crew.shown()["status"]["updated"] != "0", within_s=30, what="a first change")
    crew.rack.kill("controller")
    crew.rack.start_controller()
    until(
        lambda: crew.rack.vectl("group", "list", code=None).code == 0,
        within_s=30,
        what="the controller",
    )
    crew.rack.vectl("group", "rollout", "status", NAME, "--timeout", "90s")
    after = {ve["name"]: ve["uid"] for ve in crew.ves()}
    assert len(after) == 4
    assert {name: after[name] for name in uids} == uids
    for name in after:
        assert crew.rack.vectl("exec", name, "--", "cat", "/etc/release").out == "crew-two"
