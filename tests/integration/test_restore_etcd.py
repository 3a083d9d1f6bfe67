"""`vecontroller restore` on real backups and a real etcd: what comes out is never a store of the past that looks like the present."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from kit.etcds import forget_data, real_etcd, store_of
from kit.eventually import eventually
from kit.leadingcontroller import CLUSTER, controller, fresh_controller, make_identities
from kit.vectlrun import VECTL, Door, Ran, Vectl, ended
from veapi.clock import SystemClock
from veapi.errors import Conflict, InvalidInput
from veapi.model import Cluster, Uid
from vecontroller.restoring import raised, restore_embedded, restore_snapshot
from vecontroller.store import keys, values
from vecontroller.store.etcd import EtcdStore

__all__ = ["forget_data"]
CLOCK = SystemClock()
PROGRAM = Path(VECTL).with_name("vecontroller")


@pytest.fixture
async def backup(tmp_path: Path) -> Path:
    """Of a store with the VE web, in which a controller leads."""
    file = tmp_path / "b"
    async with (
        real_etcd(tmp_path / "old") as etcd,
        fresh_controller(etcd, make_identities(tmp_path / "certs")) as running,
    ):
        await running.put_ve("u1", name="web")
        door = Door(running.target, running.identities["ann"])
        await Vectl(door, tmp_path)("cluster", "backup", str(file))
    return file


async def cluster_of(store: EtcdStore) -> Cluster:
    item = await store.get(keys.CLUSTER)
    assert item is not None
    return values.decode_cluster(item.value)


def made(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name not in ("lock", "etcd")]


def _cut(whole: Path, bad: Path) -> None:
    bad.write_bytes(whole.read_bytes()[:-2000])


async def program(*arguments: str) -> Ran:
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(
        str(PROGRAM), "restore", *arguments, stdout=pipe, stderr=pipe, stdin=pipe
    )
    return await ended(started, b"")


async def test_all_is_there_again_under_a_higher_incarnation_that_nobody_confirmed(
    backup: Path, tmp_path: Path
) -> None:
    done = await restore_embedded(backup, tmp_path / "new", CLUSTER, CLOCK)
    assert not (tmp_path / "new" / "restoring").exists()
    async with real_etcd(tmp_path / "new") as etcd:
        async with store_of(etcd) as store:
            cluster = await cluster_of(store)
            assert cluster.incarnation == done.incarnation > 1
            assert cluster.confirmed_incarnation == 1
            assert await store.get(keys.LEADER) is None
            assert await store.get(keys.BEAT) is None
            assert await store.get(keys.ve_spec(Uid("u1"))) is not None
        identities = make_identities(tmp_path / "more")
        async with controller(etcd, identities) as running:
            await eventually(lambda: running.core.standing.serving)
            assert running.core.standing.incarnation == done.incarnation


def test_two_restores_of_one_backup_differ_and_each_is_higher_than_what_was() -> None:
    then = Cluster(name="rack", incarnation=1, op_id="x")
    assert raised(then, 1_790_000_000.9).incarnation == 1_790_000_000
    assert raised(then, 1_790_000_060.0).incarnation == 1_790_000_060
    later = Cluster(name="rack", incarnation=1_790_000_060, confirmed_incarnation=1_790_000_060)
    again = raised(later, 5.0)
    assert (again.incarnation, again.confirmed_incarnation) == (1_790_000_061, 1_790_000_060)


async def test_a_store_that_is_there_is_left_alone(backup: Path, tmp_path: Path) -> None:
    data = tmp_path / "old"
    with pytest.raises(Conflict, match="not empty"):
        await restore_embedded(backup, data, CLUSTER, CLOCK)
    async with real_etcd(data) as etcd:
        with pytest.raises(Conflict, match="another controller"):
            await restore_embedded(backup, data, CLUSTER, CLOCK)
        assert etcd._lock is not None
        etcd._lock.close()  # as if the controller was killed: its etcd runs on
        with pytest.raises(Conflict, match="still runs"):
            await restore_embedded(backup, data, CLUSTER, CLOCK)
        async with store_of(etcd) as store:
            assert (await cluster_of(store)).incarnation == 1


async def test_what_is_no_whole_backup_of_this_cluster_leaves_nothing(
    backup: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    _cut(backup, bad)
    for file, cluster in ((bad, CLUSTER), (backup, "other"), (tmp_path / "none", CLUSTER)):
        with pytest.raises(InvalidInput):
            await restore_embedded(file, tmp_path / "new", cluster, CLOCK)
    assert made(tmp_path / "new") == []


async def test_what_a_restore_left_that_was_killed_is_in_nobodys_way(
    backup: Path, tmp_path: Path
) -> None:
    left = tmp_path / "new" / "restoring" / "etcd" / "data"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    await restore_embedded(backup, tmp_path / "new", CLUSTER, CLOCK)
    assert not left.exists()
    assert (tmp_path / "new" / "etcd" / "data" / "member").is_dir()


async def test_members_of_an_external_etcd_get_a_snapshot_that_is_raised_already(
    backup: Path, tmp_path: Path
) -> None:
    out = tmp_path / "raised.db"
    ran = await program(str(backup), "--snapshot", str(out))
    assert ran.code == 0, ran.err
    assert f"{out}: cluster rack, incarnation " in ran.out
    assert out.stat().st_mode & 0o077 == 0
    command = ["etcdctl", "snapshot", "restore", str(out)]
    await asyncio.to_thread(
        subprocess.run,
        [*command, "--data-dir", str(tmp_path / "m1" / "etcd" / "data")],
        env={**os.environ, "ETCDCTL_API": "3"},
        check=True,
        capture_output=True,
        timeout=60,
    )
    async with real_etcd(tmp_path / "m1") as etcd, store_of(etcd) as store:
        assert (await cluster_of(store)).incarnation > 1
        assert await store.get(keys.LEADER) is None
    with pytest.raises(Conflict, match="is there already"):
        await restore_snapshot(backup, out, CLOCK)


async def test_the_program_tells_what_it_did_and_what_it_can_not_do(
    backup: Path, tmp_path: Path
) -> None:
    config = tmp_path / "controller.toml"
    head = (
        f'name = "c1"\ncluster = "rack"\ndata = "{tmp_path / "new"}"\naddress = "127.0.0.1:7443"\n'
        'listen = ["127.0.0.1:7443"]\n[tls]\nca = "a"\ncert = "b"\nkey = "c"\n[etcd]\n'
    )
    config.write_text(head + 'endpoints = ["127.0.0.1:1"]\nca = "a"\ncert = "b"\nkey = "c"\n')
    ran = await program(str(backup), "--config", str(config))
    assert ran.code == 2
    assert "--snapshot" in ran.err
    config.write_text(head + "embedded = true\n")
    ran = await program(str(backup), "--config", str(config))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("restored cluster rack, incarnation ")
    assert "vectl cluster confirm" in ran.out
    ran = await program(str(backup), "--config", str(config))
    assert ran.code == 4
    assert "not empty" in ran.err
