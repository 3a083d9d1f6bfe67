"""System tests: root, real VEs, on a rack of network namespaces that these tests make and remove."""

import os
import shutil
from collections.abc import Iterator

import pytest

from kit.rack import Rack, running_rack

PROGRAMS = ("lxc-start", "lxcfs", "mkfs.btrfs", "nft", "ip", "etcd", "busybox")


@pytest.fixture(scope="session")
def host_can_run_ves() -> None:
    """Skips, with the reason, where real VEs can't run."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"programs are missing: {', '.join(missing)} (make setup)")


@pytest.fixture(scope="session")
def rack(host_can_run_ves: None) -> Iterator[Rack]:
    """One rack for all tests that leave it as they found it."""
    with running_rack() as made:
        yield made


@pytest.fixture
def clean(rack: Rack) -> Iterator[Rack]:
    """The rack, with every VE deleted for good afterwards, and every image but busybox."""
    yield rack
    rack.purge_all()
    rack.forget_images()
