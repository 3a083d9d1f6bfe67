"""On the local rack: a quota refuses what would pass it, shows what is used, and lets go on when there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.rack import Rack

SPEC = "{image: busybox, cpu: 0.1, memory: 32M, disk: 64M, pids: 64}"
NO_LIMIT = ("--ves", "none", "--memory", "0")


@pytest.fixture
def limited(clean: Rack) -> Iterator[Rack]:
    clean.vectl("project", "set", "default", "--ves", "2", "--memory", "80M")
    yield clean
    clean.vectl("project", "set", "default", *NO_LIMIT)


def create(rack: Rack, folder: Path, name: str, *, code: int = 0) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(f"kind: VE\nmetadata: {{name: {name}}}\nspec: {SPEC}")
    return rack.vectl("apply", "-f", str(path), code=code).err


def used(rack: Rack) -> tuple[int, int]:
    usage = rack.vectl("project", "show", "default", "-o", "json").json()["usage"]
    return int(usage["ves"]), int(usage["memory_bytes"])


@pytest.mark.timeout(300)
def test_a_quota_holds_until_there_is_room_and_a_lowered_one_only_blocks_growth(
    limited: Rack, tmp_path: Path
) -> None:
    create(limited, tmp_path, "one")
    create(limited, tmp_path, "two")
    refused = create(limited, tmp_path, "three", code=4)
    assert "quota of project default: VEs 2 of 2 used, 1 asked; memory" in refused
    assert used(limited) == (2, 64 << 20)
    limited.vectl("set", "one", "--memory", "64M", code=4)

    lowered = limited.vectl("project", "set", "default", "--memory", "40M")
    assert "it has more: memory 64M of 40M" in lowered.err
    shown = limited.vectl("project", "show", "default").out.splitlines()
    assert shown[0].split() == ["RESOURCE", "USED", "QUOTA"]
    assert ["memory", "64M", "40M"] in [line.split() for line in shown]
    limited.vectl("set", "one", "--memory", "24M")
    assert "56M/40M" in limited.vectl("project", "list", "-o", "wide").out

    limited.vectl("delete", "two", "--yes", "--purge")
    limited.vectl("project", "set", "default", "--memory", "none")
    create(limited, tmp_path, "three")
    assert used(limited)[0] == 2


@pytest.mark.timeout(300)
def test_an_empty_project_goes_and_default_stays(clean: Rack) -> None:
    clean.vectl("project", "create", "shortlived")
    clean.vectl("project", "show", "shortlived")
    assert clean.vectl("project", "delete", "shortlived").out == "project/shortlived deleted\n"
    clean.vectl("project", "show", "shortlived", code=3)
    clean.vectl("project", "delete", "default", code=4)
