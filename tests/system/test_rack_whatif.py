"""On the local rack: what is simulated and planned is what then happens."""

from pathlib import Path

import pytest

from kit.rack import Rack, until

SPEC = "{image: busybox, cpu: 0.1, memory: 32M, disk: 64M, pids: 64}"


def manifest(folder: Path, *names: str) -> str:
    path = folder / "ves.yaml"
    path.write_text(
        "\n---\n".join(f"kind: VE\nmetadata: {{name: {name}}}\nspec: {SPEC}" for name in names)
    )
    return str(path)


def hosts_of(rack: Rack) -> dict[str, str]:
    return {ve["name"]: ve["placement"]["host"]
            for ve in rack.vectl("list", "-o", "json").json()["items"]}  # fmt: skip


@pytest.mark.timeout(300)
def test_ves_go_where_the_simulation_and_the_plan_said(clean: Rack, tmp_path: Path) -> None:
    path, plan = manifest(tmp_path, "one", "two", "three"), str(tmp_path / "plan.json")
    simulated = clean.vectl("simulate", "--apply", path, "-o", "json").json()
    clean.vectl("plan", "-f", path, "--out", plan)
    assert hosts_of(clean) == {}
    first = clean.vectl("apply", "--plan", plan).out
    assert first.splitlines()[0].startswith("ve/one created: ")
    assert hosts_of(clean) == {ve["name"]: ve["to_host"] for ve in simulated["ves"]}
    moved = clean.vectl("apply", "--plan", plan, code=4).err
    assert "one is there by now; two is there by now; three is there by now" in moved


@pytest.mark.timeout(300)
def test_the_loss_of_a_host_is_thought_through_and_nothing_happens(
    clean: Rack, tmp_path: Path
) -> None:
    view = str(tmp_path / "view.json")
    clean.vectl("apply", "-f", manifest(tmp_path, "one", "two", "three"))
    before = hosts_of(clean)
    lost = before["one"]
    clean.vectl("simulate", "--save-view", view)
    found = clean.vectl("simulate", "--remove-host", lost, "-o", "json").json()
    assert {ve["name"] for ve in found["ves"]} == {
        name for name, host in before.items() if host == lost
    }
    assert all(ve["to_host"] not in ("", lost) for ve in found["ves"])
    clean.vectl("delete", "one", "--yes", "--purge")
    until(lambda: "one" not in hosts_of(clean), within_s=20, what="the end of one")
    again = clean.vectl("simulate", "--view", view, "--remove-host", lost, "-o", "json").json()
    assert again == found
    assert hosts_of(clean) == {name: host for name, host in before.items() if name != "one"}
