"""The short part of `make chaos`: a few fixed cases and two random rounds with 30 VEs; and that the oracle sees two copies."""

import fcntl
import os
import shutil
from collections.abc import Iterator

import pytest

from chaos import checks
from chaos.cases import CASES, CI
from chaos.checks import Ledger, Violation
from chaos.rig import IMAGE, SMALL, Rig, rig_of
from chaos.rounds import play
from kit.rack import until

pytestmark = pytest.mark.timeout(300)
PROGRAMS = ("lxc-start", "lxcfs", "mkfs.btrfs", "nft", "ip", "etcd", "etcdctl", "busybox", "flock")
SEED = int(os.environ.get("VERACK_CHAOS_SEED", "5"))


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"programs are missing: {', '.join(missing)} (make setup)")
    with rig_of(30, suffix="x") as made:
        made.turns = 1
        yield made


@pytest.mark.parametrize("name", CI)
def test_a_case_keeps_all_promises(rig: Rig, name: str) -> None:
    CASES[name][1](rig)
    checks.never_twice(rig)


@pytest.mark.parametrize("number", [0, 1])
def test_a_random_round_keeps_all_promises(rig: Rig, number: int) -> None:
    play(rig, SEED, number, Ledger())


def test_a_second_copy_does_not_escape_the_oracle(rig: Rig) -> None:
    """A copy is started where the lock is held already: by this test, in place of another host."""
    lock = rig.oracle.locks / "second"
    with lock.open("a") as file:
        lock.chmod(0o666)
        fcntl.flock(file, fcntl.LOCK_EX)
        rig.rack.vectl("create", "second", "--image", IMAGE, *SMALL)
        until(lambda: rig.oracle.lines("second"), within_s=30, what="its init has spoken")
        with pytest.raises(Violation, match="second: TWICE on h"):
            checks.never_twice(rig)
    rig.rack.purge("second")
    lock.unlink()


def test_afterwards_nothing_is_left_on_any_host(rig: Rig) -> None:
    checks.nothing_left(rig)
