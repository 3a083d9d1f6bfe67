"""`vectl cluster backup` and `verify`, the real programs on a real etcd; what was backed up is what etcd's own tool restores."""

import asyncio
import os
import signal
import subprocess
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from kit.etcds import forget_data, real_etcd, store_of
from kit.eventually import eventually
from kit.leadingcontroller import Running, fresh_controller, make_identities
from kit.vectlrun import Door, Vectl, ended
from vecontroller.api import cluster
from vecontroller.store import keys, values

__all__ = ["forget_data"]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with (
        real_etcd(tmp_path) as etcd,
        fresh_controller(etcd, make_identities(tmp_path / "certs")) as running,
    ):
        yield running


@pytest.fixture
def vectl(running: Running, tmp_path: Path) -> Vectl:
    return Vectl(Door(running.target, running.identities["ann"]), tmp_path)


async def test_a_backup_is_whole_and_says_what_it_is(
    running: Running, vectl: Vectl, tmp_path: Path
) -> None:
    await running.put_ve("u1", name="web")
    file = tmp_path / "rack.backup"
    ran = await vectl("cluster", "backup", str(file))
    assert ran.out.startswith(f"cluster/rack backed up: {file}, ")
    assert file.stat().st_mode & 0o777 == 0o600
    told = (await vectl("cluster", "verify", str(file))).out
    assert "Cluster:     rack\n" in told
    assert "Incarnation: 1\n" in told


async def test_etcds_own_tool_makes_a_store_of_it_with_all_that_was_there(
    running: Running, vectl: Vectl, tmp_path: Path
) -> None:
    await running.put_ve("u1", name="web")
    await vectl("cluster", "backup", str(tmp_path / "b"))
    await running.put_ve("u2", name="later", ip="10.66.0.9")
    fresh = tmp_path / "fresh"
    with tarfile.open(tmp_path / "b") as tar:
        inside = tar.extractfile("snapshot.db")
        assert inside is not None
        (tmp_path / "snapshot.db").write_bytes(inside.read())
    command = ["etcdctl", "snapshot", "restore", str(tmp_path / "snapshot.db")]
    await asyncio.to_thread(
        subprocess.run,
        [*command, "--data-dir", str(fresh / "etcd" / "data")],
        env={**os.environ, "ETCDCTL_API": "3"},
        check=True,
        capture_output=True,
        timeout=60,
    )
    async with real_etcd(fresh) as etcd, store_of(etcd) as store:
        found = {item.key: item.value for item in (await store.list(keys.ROOT + "ve/spec/")).items}
    (only,) = found.values()
    assert values.decode_ve(only).name == "web"


async def test_a_changed_byte_is_told_by_verify(vectl: Vectl, tmp_path: Path) -> None:
    file = tmp_path / "b"
    await vectl("cluster", "backup", str(file))
    with file.open("r+b") as opened:
        opened.seek(5000)
        byte = opened.read(1)
        opened.seek(5000)
        opened.write(bytes([byte[0] ^ 1]))
    ran = await vectl("cluster", "verify", str(file), code=2)
    assert "no whole backup" in ran.err


async def test_a_file_that_is_there_is_kept_unless_forced(vectl: Vectl, tmp_path: Path) -> None:
    file = tmp_path / "b"
    file.write_text("mine")
    ran = await vectl("cluster", "backup", str(file), code=4)
    assert "--force" in ran.err
    assert file.read_text() == "mine"
    await vectl("cluster", "backup", "--force", str(file))
    await vectl("cluster", "verify", str(file))


async def test_one_that_was_interrupted_or_broke_off_leaves_nothing(
    vectl: Vectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, begun, go_on = tmp_path / "to", asyncio.Event(), asyncio.Event()
    folder.mkdir()
    whole = cluster.ClusterService._frames

    async def halting(self) -> AsyncGenerator:
        count = 0
        async for frame in whole(self):
            yield frame
            count += 1
            if count == 2:
                begun.set()
                await go_on.wait()
                return

    monkeypatch.setattr(cluster.ClusterService, "_frames", halting)
    process = await vectl.start("cluster", "backup", str(folder / "b"))
    async with asyncio.timeout(10):
        await begun.wait()
    await eventually(lambda: list(folder.iterdir()))
    process.send_signal(signal.SIGINT)
    assert (await ended(process, b"")).code == 130
    assert not list(folder.iterdir())
    go_on.set()
    ran = await vectl("cluster", "backup", str(folder / "b"), code=8)
    assert "broke off" in ran.err
    assert not list(folder.iterdir())


async def test_a_host_gets_no_backup(running: Running, vectl: Vectl, tmp_path: Path) -> None:
    vectl.context(running.identities["h1"])
    ran = await vectl("cluster", "backup", str(tmp_path / "b"), code=7)
    assert "may not call" in ran.err
    assert not (tmp_path / "b").exists()
