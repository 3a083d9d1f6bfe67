"""Real etcds for tests, on loopback, each with a data directory and certificates of its own."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

from veapi.clock import SystemClock
from vecontroller.identity import EtcdIdentity, make_etcd_identity
from vecontroller.store.embedded import EmbeddedEtcd, running_etcd
from vecontroller.store.etcd import EtcdStore
from vecontroller.store.watch import WatchTiming

OWNER = "VERACK_TEST_OWNER"
os.environ[OWNER] = str(os.getpid())


@cache
def sweep_stale() -> None:
    """Ends etcds of tests whose process is gone: an etcd outlives its controller by design."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if (folder / "cmdline").read_bytes().split(b"\0")[0].endswith(b"/etcd"):
                owner = _owner((folder / "environ").read_bytes())
                if owner and not Path(f"/proc/{owner}").exists():
                    os.kill(int(folder.name), signal.SIGKILL)


def _owner(environ: bytes) -> int:
    """The test process that started it; 0 when none did."""
    for entry in environ.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name.decode() == OWNER:
            return int(value)
    return 0


@asynccontextmanager
async def real_etcd(
    folder: Path, *, identity: EtcdIdentity | None = None
) -> AsyncIterator[EmbeddedEtcd]:
    """An etcd below `folder` that is restarted when it dies."""
    sweep_stale()
    identity = identity or make_etcd_identity(folder / "pki")
    async with running_etcd(folder / "etcd", identity=identity, clock=SystemClock()) as etcd:
        yield etcd


@contextmanager
def lasting_etcd(folder: Path) -> Iterator[EmbeddedEtcd]:
    """An etcd for tests of several event loops; nobody restarts it."""
    sweep_stale()
    identity = make_etcd_identity(folder / "pki")
    etcd = EmbeddedEtcd(folder / "etcd", identity=identity, clock=SystemClock())
    try:
        asyncio.run(etcd.start())
        yield etcd
    finally:
        asyncio.run(etcd.stop())
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def forget_data(tmp_path: Path) -> Iterator[None]:
    """For test files that start etcds: each takes 128 MiB, which pytest would keep for its next runs."""
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


@asynccontextmanager
async def store_of(
    etcd: EmbeddedEtcd, *endpoints: str, timing: WatchTiming | None = None, **options
) -> AsyncIterator[EtcdStore]:
    """A client of `etcd`, by its own endpoint or by others that lead to it."""
    store = EtcdStore(
        endpoints or (etcd.endpoint,), etcd.client_identity, watch_timing=timing, **options
    )
    try:
        yield store
    finally:
        await store.aclose()


def kill(etcd: EmbeddedEtcd) -> int:
    """SIGKILL; gives the id of the dead."""
    pid = etcd.pid
    os.kill(pid, signal.SIGKILL)
    return pid
