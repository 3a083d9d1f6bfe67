"""A restored store on a real etcd: the real controller stands still, and `vectl cluster confirm` ends that."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.etcds import forget_data, real_etcd, store_of
from kit.eventually import eventually
from kit.leadingcontroller import CLUSTER, Running, fresh_controller, make_identities
from kit.vectlrun import Door, Vectl
from kit.world import make_placement, make_ve
from veapi.errors import Conflict
from veapi.model import Cluster, HostName, Uid, VEReport, VEState, VEStatus
from vecontroller.api.confirming import Confirming
from vecontroller.app import api_deps
from vecontroller.leader import init_cluster
from vecontroller.store import keys, values
from vecontroller.store.port import Put

__all__ = ["forget_data"]
INCARNATION = 1_790_000_000


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """It leads on a store that was restored; u1 is on h1 there."""
    async with real_etcd(tmp_path) as etcd:
        async with store_of(etcd) as store:
            await init_cluster(store, Cluster(name=CLUSTER, incarnation=INCARNATION))
            ve = make_ve("u1", name="web")
            placed = Put(
                key=keys.ve_placement(ve.uid), value=values.encode_placement(make_placement("h1"))
            )
            await store.transact(
                [], [Put(key=keys.ve_spec(ve.uid), value=values.encode_ve(ve)), placed]
            )
        async with fresh_controller(etcd, make_identities(tmp_path / "certs")) as running:
            yield running


@pytest.fixture
def vectl(running: Running, tmp_path: Path) -> Vectl:
    return Vectl(Door(running.target, running.identities["ann"]), tmp_path)


def runs(uid: str, host: str) -> VEReport:
    status = VEStatus(state=VEState.RUNNING, host=HostName(host), placement_generation=3)
    return VEReport(uid=Uid(uid), name="web", project="default", status=status, orphan=True)


def refused(running: Running, uid: str) -> str:
    found = running.core.scheduler.refusals.get(Uid(uid))
    return found.reason if found is not None else ""


async def test_nothing_is_changed_and_all_is_shown_until_somebody_confirms(
    running: Running, vectl: Vectl
) -> None:
    await running.put_ve("u2", name="waits", ip="10.66.0.9")
    async with running.agent("h1") as agent:
        await agent.report(whole=True)
        await eventually(lambda: agent.sets and agent.sets[-1].unconfirmed)
        await eventually(lambda: refused(running, "u2") == "Unconfirmed")
        assert running.place("u2") is None

        assert "cluster confirm" in (await vectl("cluster", "status")).out
        assert "waits" in (await vectl("list")).out
        ran = await vectl("stop", "waits", code=4)
        assert "the store was restored and nobody has confirmed it" in ran.err
        assert "vectl cluster confirm" in ran.err
        assert "not without being sure" in (await vectl("cluster", "confirm", code=2)).err

        ran = await vectl("cluster", "confirm", "--yes")
        assert "h1: start: 1 (default/web)" in ran.err
        assert "without a host: place 1 (default/waits)" in ran.err
        assert ran.out == "cluster/rack confirmed\n"
        await eventually(lambda: running.place("u2") == "h1")
        await eventually(lambda: not agent.sets[-1].unconfirmed)
        assert agent.sets[-1].order.incarnation == INCARNATION
        assert "needs no confirmation" in (await vectl("cluster", "confirm")).out
        assert "Restored" not in (await vectl("cluster", "status")).out


async def test_a_host_that_is_not_heard_is_waited_for_or_named_once_its_lease_is_over(
    running: Running, vectl: Vectl
) -> None:
    ran = await vectl("cluster", "confirm", "--yes", code=4)
    assert "h1: not heard of yet" in ran.err
    assert "--without" in ran.err
    ran = await vectl("cluster", "confirm", "--yes", "--without", "h1", code=4)
    assert "try again in" in ran.err
    await eventually(lambda: running.core.liveness.silent_for(HostName("h1")) > 12, timeout_s=20)
    await vectl("cluster", "confirm", "--yes", "--without", "h1")


async def test_what_was_moved_since_the_backup_stays_where_it_runs(
    running: Running, vectl: Vectl
) -> None:
    async with running.agent("h1") as old, running.agent("h2") as new:
        await old.report(whole=True)
        await new.report(runs("u1", "h2"), whole=True)
        ran = await vectl("cluster", "confirm", "--yes")
        assert "h2: stay here, where they are: 1 (default/web)" in ran.err
        assert "h1: nothing changes" in ran.err
        await eventually(lambda: [each.uid for each in new.entries] == ["u1"])
        assert new.entries[0].placement_generation == 3
        await eventually(lambda: old.entries == ())
        assert not any(each.entries for each in old.sets if not each.unconfirmed)


async def test_another_incarnation_than_was_looked_at_is_refused(running: Running) -> None:
    with pytest.raises(Conflict, match="incarnation"):
        await Confirming(api_deps(running.core)).confirm(INCARNATION - 1, ())
