"""The folder for who works in a VE from outside, on made-up trees of both versions."""

from pathlib import Path

import pytest

from kit.cgrouptree import MadeUpKernel
from veagent.cgroup import Cgroups
from veapi.errors import NotFound
from veapi.model import Limits, Uid

UID = Uid("4b1b8a8e-0000-4000-8000-000000000001")
LIMITS = Limits(cpu_millis=1500, memory_bytes=8000, pids=100)


@pytest.fixture(params=[1, 2])
def cgroups(request: pytest.FixtureRequest, tmp_path: Path) -> Cgroups:
    made = Cgroups("verack/h1", fs=str(tmp_path), files=MadeUpKernel(tmp_path, request.param))
    made.setup()
    return made


def test_a_guest_counts_as_the_ves_own_is_in_no_freezer_and_goes_with_it(
    cgroups: Cgroups, tmp_path: Path
) -> None:
    cgroups.create(UID, LIMITS)
    paths = [Path(path) for path in cgroups.guest(UID)]
    assert cgroups.guest(UID) == tuple(str(path) for path in paths)
    assert all(path.parent.parent.name == UID and path.parent.is_dir() for path in paths)
    tops = {path.relative_to(tmp_path).parts[0] for path in paths}
    assert tops == ({"verack"} if cgroups.version == 2 else {"memory", "blkio", "cpu", "cpuacct"})
    assert cgroups.remove(UID)
    assert not any(path.parent.exists() for path in paths)


def test_a_ve_that_does_not_run_has_no_guests(cgroups: Cgroups) -> None:
    with pytest.raises(NotFound):
        cgroups.guest(UID)
