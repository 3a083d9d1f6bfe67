"""Makes a store of a backup, while nothing runs: its incarnation is raised before any controller can see it.

All of it happens in a folder of its own. What comes out appears in its place whole, by one rename: a store that was
restored, but whose incarnation is that of the past, is never where a controller would look for one.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from veapi import backupfile
from veapi.backupfile import Backup
from veapi.clock import Clock
from veapi.errors import Conflict, InvalidInput, RemoteFailed, Unavailable
from veapi.model import Cluster, Value
from vecontroller.identity import make_etcd_identity
from vecontroller.store import keys, values
from vecontroller.store.embedded import STOP_WITHIN_S, EmbeddedEtcd, locked
from vecontroller.store.etcd import EtcdStore
from vecontroller.store.port import Delete, Guard, Put
from vecontroller.store.processes import find_living

log = structlog.get_logger()
LIMIT_S = 600.0
"""For etcdctl, which writes some hundred MB a second."""
_DATA = Path("etcd") / "data"


class Restored(Value, frozen=True, kw_only=True):
    """`backup`: what it was made of. `incarnation`: that which the store has now."""

    backup: Backup
    incarnation: int


def raised(cluster: Cluster, now: float) -> Cluster:
    """Nobody has confirmed it. `now` in Unix seconds: so that two restores of one backup differ."""
    incarnation = max(cluster.incarnation + 1, int(now))
    return msgspec.structs.replace(cluster, incarnation=incarnation, op_id="")


async def restore_embedded(file: Path, data: Path, cluster: str, clock: Clock) -> Restored:
    """Puts the backup where the embedded etcd of a controller with this `data` folder looks for its store.

    Conflict when there is one already, or a controller or etcd runs there; InvalidInput when the file is no whole backup,
    or another cluster's. Then nothing was changed.
    """
    home = data / "etcd"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = locked(home)
    try:
        _check_free(home)
        async with _workshop(data / "restoring") as folder:
            backup = await asyncio.to_thread(_unpacked, file, folder / "snapshot.db", cluster)
            restored = await _restored(folder, backup, clock)
            _hand_over(folder / _DATA, home, like=data)
    finally:
        lock.close()
    return restored


async def restore_snapshot(file: Path, out: Path, clock: Clock) -> Restored:
    """Writes a snapshot with a raised incarnation, for `etcdctl snapshot restore` on each member of an external etcd.

    Conflict when `out` is there already.
    """
    _check_absent(out)
    async with _workshop(out.with_name(f".{out.name}.restoring")) as folder:
        backup = await asyncio.to_thread(_unpacked, file, folder / "snapshot.db", "")
        restored = await _restored(folder, backup, clock, snapshot_to=folder / "out.db")
        (folder / "out.db").replace(out)
        _sync(out.parent)
    return restored


def _check_absent(out: Path) -> None:
    if out.exists():
        raise Conflict(f"{out} is there already", hint="choose another name")


def _check_free(home: Path) -> None:
    living = find_living(home / "etcd.pid")
    if living is not None:
        pid = living.pid
        living.forget()
        raise Conflict(
            f"the etcd of this controller still runs, as process {pid}",
            hint="stop the controller, and end that process with SIGTERM",
        )
    data = home / "data"
    if data.exists() and any(data.iterdir()):
        raise Conflict(
            f"{data} is not empty: there is a store already",
            hint=f"if it is the one that is lost, move it away: mv {data} {data}.lost",
        )


@asynccontextmanager
async def _workshop(folder: Path) -> AsyncIterator[Path]:
    """An empty folder for the time being; what an earlier restore left, that was killed, is removed first."""
    try:
        await _cleared(folder)
        os.mkdir(folder, mode=0o700)  # noqa: PTH102 - nobody else runs in this program
        yield folder
    except OSError as error:
        raise Conflict(f"can't restore: {error}", hint="see that there is room") from None
    finally:
        await _cleared(folder)


async def _cleared(folder: Path) -> None:
    living = find_living(folder / "etcd" / "etcd.pid")
    if living is not None:
        await living.end(STOP_WITHIN_S)
    shutil.rmtree(folder, ignore_errors=True)


def _unpacked(file: Path, snapshot: Path, cluster: str) -> Backup:
    """Checks all of the backup. `cluster`: whose it has to be; empty: anybody's."""
    try:
        with file.open("rb") as backup, snapshot.open("xb") as out:
            found = backupfile.read(backup, snapshot_to=out)
    except FileNotFoundError as error:
        raise InvalidInput(f"can't read {error.filename}: {error.strerror}") from None
    if cluster and found.cluster != cluster:
        raise InvalidInput(
            f"this is a backup of cluster {found.cluster}, not of {cluster}",
            hint="take another file, or correct `cluster` in controller.toml",
        )
    return found


async def _restored(
    folder: Path, backup: Backup, clock: Clock, *, snapshot_to: Path | None = None
) -> Restored:
    """The data of etcd below `folder`, with the incarnation raised; nothing runs any more."""
    data = folder / _DATA
    await asyncio.to_thread(_etcdctl, folder / "snapshot.db", data)
    etcd = EmbeddedEtcd(data.parent, identity=make_etcd_identity(folder / "pki"), clock=clock)
    try:
        await etcd.start()
        async with aclosing(EtcdStore([etcd.endpoint], etcd.client_identity)) as store:
            cluster = await _raise(store, backup, clock.wall())
            if snapshot_to is not None:
                await _snapshot(store, snapshot_to)
    finally:
        await etcd.stop()
    return Restored(backup=backup, incarnation=cluster.incarnation)


def _etcdctl(snapshot: Path, data: Path) -> None:
    program = shutil.which("etcdctl")
    if program is None:
        raise Unavailable(
            "there is no `etcdctl` program on this machine",
            hint="install it (on Debian: apt install etcd-client)",
        )
    data.parent.mkdir(mode=0o700)
    quiet = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
    peer = "https://127.0.0.1:2380"
    ran = subprocess.run(
        [
            *(program, "snapshot", "restore", str(snapshot), f"--data-dir={data}"),
            *("--name=embedded", f"--initial-cluster=embedded={peer}"),
            f"--initial-advertise-peer-urls={peer}",
        ],
        env={**quiet, "ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if ran.returncode:
        words = ran.stderr.strip().splitlines()
        raise RemoteFailed(
            f"etcdctl could not restore it: {words[-1] if words else 'it said nothing'}",
            hint="see that there is room, and that etcdctl is no older than etcd",
        )


async def _raise(store: EtcdStore, backup: Backup, now: float) -> Cluster:
    """The leader of then leads no more, wherever it may still run: its writes are guarded by its key."""
    item = await store.get(keys.CLUSTER)
    if item is None:
        raise InvalidInput("the backup holds no cluster", hint="take another file")
    cluster = raised(values.decode_cluster(item.value), now)
    if cluster.name != backup.cluster:
        raise InvalidInput(f"the backup holds cluster {cluster.name}", hint="take another file")
    await store.transact(
        [Guard(key=keys.CLUSTER, mod_revision=item.mod_revision)],
        [
            Put(key=keys.CLUSTER, value=values.encode_cluster(cluster)),
            Delete(key=keys.LEADER),
            Delete(key=keys.BEAT),
        ],
    )
    written = await store.get(keys.CLUSTER)
    if written is None or values.decode_cluster(written.value) != cluster:
        raise RemoteFailed("the incarnation was not raised", hint="try again")
    return cluster


async def _snapshot(store: EtcdStore, out: Path) -> None:
    with out.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)  # it holds what users called their VEs
        async for piece in store.snapshot():
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _hand_over(made: Path, home: Path, *, like: Path) -> None:
    """By one rename, owned as the controller's folder is, in case that root did this for it."""
    owner = like.stat()
    for path in (home, *home.iterdir(), made, *made.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
        if path.is_file():
            _sync(path)
    if (home / "data").exists():
        (home / "data").rmdir()
    made.rename(home / "data")
    _sync(home)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
