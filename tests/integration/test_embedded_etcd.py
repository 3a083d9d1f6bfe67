"""The controller's own etcd: it comes back when it dies, outlives a killed controller, and leaves nothing behind."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from kit.etcds import forget_data, kill, real_etcd, store_of  # noqa: F401 - a fixture
from kit.eventually import eventually
from kit.storecontract import ROOT, put
from veapi.clock import SystemClock
from veapi.errors import Conflict, RemoteFailed, Unavailable
from vecontroller.identity import make_etcd_identity
from vecontroller.store.embedded import EmbeddedEtcd

CONTROLLER = """
import asyncio, sys
from pathlib import Path
from veapi.clock import SystemClock
from vecontroller.identity import make_etcd_identity
from vecontroller.store.embedded import EmbeddedEtcd

async def main(folder):
    identity = make_etcd_identity(folder / "pki")
    etcd = EmbeddedEtcd(folder / "etcd", identity=identity, clock=SystemClock())
    await etcd.start()
    print("pid", etcd.pid, etcd.endpoint, flush=True)
    await etcd.run()

asyncio.run(main(Path(sys.argv[1])))
"""


def embedded(folder: Path, **options) -> EmbeddedEtcd:
    identity = make_etcd_identity(folder / "pki")
    return EmbeddedEtcd(folder / "etcd", identity=identity, clock=SystemClock(), **options)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def killed_controller(folder: Path) -> tuple[int, str]:
    """Starts a controller in a process of its own, kills it, and gives its etcd's id and endpoint."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CONTROLLER, str(folder)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async for line in process.stdout:
        if line.startswith(b"pid "):
            _, pid, endpoint = line.decode().split()
            process.kill()
            await process.wait()
            return int(pid), endpoint
    raise AssertionError("the controller did not start")


def was_replaced(etcd: EmbeddedEtcd, dead: int) -> bool:
    return etcd.pid != dead


async def test_a_dead_etcd_is_restarted_at_the_same_endpoint_with_its_data(tmp_path) -> None:
    async with real_etcd(tmp_path) as etcd, store_of(etcd) as store:
        endpoint = etcd.endpoint
        for count in (1, 2):
            made = await put(store, f"{count}")
            dead = kill(etcd)
            await eventually(partial(was_replaced, etcd, dead))
            assert etcd.endpoint == endpoint
            item = await store.get(f"{ROOT}{count}")
            assert item is not None
            assert item.mod_revision == made
            assert etcd.restarts == count


async def test_a_stopped_etcd_leaves_no_process_and_keeps_data_and_endpoint(tmp_path) -> None:
    async with real_etcd(tmp_path) as etcd, store_of(etcd) as store:
        await put(store, "a")
        pid, endpoint = etcd.pid, etcd.endpoint
    assert not lives(pid)
    assert not (tmp_path / "etcd" / "etcd.pid").exists()
    async with real_etcd(tmp_path) as etcd, store_of(etcd) as store:
        assert etcd.endpoint == endpoint
        assert await store.get(ROOT + "a") is not None


async def test_a_killed_controllers_etcd_is_adopted_and_watched_and_stopped(tmp_path) -> None:
    pid, endpoint = await killed_controller(tmp_path)
    assert lives(pid)
    async with real_etcd(tmp_path) as etcd, store_of(etcd) as store:
        assert (etcd.pid, etcd.endpoint) == (pid, endpoint)
        await put(store, "a")
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: etcd.pid != pid)
        assert await store.get(ROOT + "a") is not None
        last = etcd.pid
    assert not lives(last)


async def test_an_adopted_etcd_is_stopped_with_its_controller(tmp_path) -> None:
    pid, _ = await killed_controller(tmp_path)
    async with real_etcd(tmp_path) as etcd:
        assert etcd.pid == pid
    assert not lives(pid)


async def test_an_etcd_that_runs_otherwise_than_wanted_is_replaced(tmp_path) -> None:
    pid, endpoint = await killed_controller(tmp_path)
    port = int(endpoint.partition(":")[2])
    etcd = embedded(tmp_path, client_port=port, peer_port=_another_port())
    try:
        await etcd.start()
        assert not lives(pid)
        assert etcd.endpoint == endpoint
    finally:
        await etcd.stop()


def _another_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_pid_file_that_names_another_process_is_not_believed(tmp_path) -> None:
    bystander = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        (tmp_path / "etcd").mkdir()
        shutil.copy(f"/proc/{bystander.pid}/stat", tmp_path / "etcd" / "etcd.pid")
        async with real_etcd(tmp_path) as etcd:
            assert etcd.pid != bystander.pid
        assert lives(bystander.pid)
        (tmp_path / "etcd" / "etcd.pid").write_text("no stat line")
        async with real_etcd(tmp_path):
            pass
    finally:
        bystander.kill()
        await bystander.wait()


async def test_two_controllers_cant_share_a_data_directory(tmp_path) -> None:
    async with real_etcd(tmp_path) as etcd:
        second = embedded(tmp_path)
        with pytest.raises(Conflict, match="another controller") as refused:
            await second.start()
        assert refused.value.hint
        await second.stop()
        assert lives(etcd.pid)


async def test_without_an_etcd_program_the_error_names_the_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable) as refused:
        await embedded(tmp_path).start()
    assert "etcd-server" in refused.value.hint


async def test_an_etcd_that_cant_start_says_its_last_words(tmp_path) -> None:
    async with real_etcd(tmp_path):
        pass
    for part in (tmp_path / "etcd" / "data" / "member" / "wal").iterdir():
        part.write_bytes(b"garbage" * 100)
    etcd = embedded(tmp_path)
    try:
        with pytest.raises(RemoteFailed) as refused:
            await etcd.start()
        assert "etcd.log" in refused.value.hint
    finally:
        await etcd.stop()


async def test_a_taken_port_is_replaced_by_a_free_one(tmp_path) -> None:
    async with real_etcd(tmp_path) as etcd:
        old = etcd.endpoint
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", int(old.partition(":")[2]))
    try:
        async with real_etcd(tmp_path) as etcd:
            assert etcd.endpoint != old
    finally:
        server.close()


async def test_a_large_log_is_set_aside_at_start(tmp_path) -> None:
    folder = tmp_path / "etcd"
    folder.mkdir()
    (folder / "etcd.log").write_bytes(b"x" * (9 << 20))
    async with real_etcd(tmp_path):
        assert (folder / "etcd.log").stat().st_size < 1 << 20
        assert (folder / "etcd.log.1").stat().st_size == 9 << 20


async def test_the_data_is_for_its_owner_only(tmp_path) -> None:
    async with real_etcd(tmp_path):
        assert (tmp_path / "etcd").stat().st_mode & 0o077 == 0
