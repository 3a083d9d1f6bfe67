"""Changes a rack's etcd behind the controller's back: what a store that was restored from an old copy looks like."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from devrack.network import NETNS
from kit.rack import Rack
from veapi.channel import Identity
from veapi.model import Uid
from vecontroller.store import keys, values
from vecontroller.store.etcd import EtcdStore
from vecontroller.store.port import Delete, Guard, Put

_TRIES = 50


def forget(rack: Rack, ve: dict[str, Any]) -> None:
    """Removes all that the store has of the VE, as it was shown."""
    _run(rack, "forget", ve["uid"], ve["project"], ve["name"], *ve["status"]["addresses"])


def age_snapshots(rack: Rack, name: str, seconds: float) -> None:
    """As if each snapshot of the VE had been asked for so much earlier."""
    _run(rack, "age", rack.ve(name)["uid"], str(seconds))


def _run(rack: Rack, *words: str) -> None:
    """In the switch's namespace, where etcd listens."""
    data = rack.plan.state / "controller"
    done = subprocess.run(
        [
            *("nsenter", f"--net={NETNS / rack.plan.switch}"),
            *(sys.executable, "-c", "from kit.rackstore import main; main()", str(data), *words),
        ],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def main() -> None:
    data, verb, *words = sys.argv[1:]
    asyncio.run(_change(Path(data), verb, words))


async def _change(data: Path, verb: str, words: list[str]) -> None:
    port = json.loads((data / "etcd/ports.json").read_text())["client"]
    pki = data / "etcd-identity"
    identity = Identity(pki / "ca.crt", pki / "client.crt", pki / "client.key")
    store = EtcdStore([f"127.0.0.1:{port}"], identity)
    try:
        await (_forget(store, *words) if verb == "forget" else _age(store, *words))
    finally:
        await store.aclose()


async def _forget(store: EtcdStore, uid: str, project: str, name: str, *ips: str) -> None:
    of_ve = (keys.ve_spec, keys.ve_placement, keys.ve_status, keys.ve_deleted)
    doomed = [make(Uid(uid)) for make in of_ve]
    found = await store.list(keys.ROOT + "addr/")
    addresses = [item.key for item in found.items if item.key.rpartition("/")[2] in ips]
    doomed += [keys.ve_name(project, name), *addresses]
    await store.transact([], [Delete(key=key) for key in doomed])


async def _age(store: EtcdStore, uid: str, seconds: str) -> None:
    """Again while the controller writes at the same time."""
    for _ in range(_TRIES):
        if await _aged(store, keys.ve_spec(Uid(uid)), float(seconds)):
            return
    raise TimeoutError(f"{uid} is written all the time")


async def _aged(store: EtcdStore, key: str, seconds: float) -> bool:
    item = await store.get(key)
    assert item is not None
    ve = values.decode_ve(item.value)
    older = tuple(
        msgspec.structs.replace(wish, created_at=wish.created_at - seconds) for wish in ve.snapshots
    )
    changed = values.encode_ve(msgspec.structs.replace(ve, snapshots=older))
    guard = Guard(key=key, mod_revision=item.mod_revision)
    return (await store.transact([guard], [Put(key=key, value=changed)])).succeeded
