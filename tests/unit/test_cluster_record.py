"""What the store says of its cluster: written once, and no other cluster's is taken."""

import pytest

from kit.manualclock import ManualClock
from kit.modelstore import Fail, ModelStore
from veapi.errors import Conflict, InvalidInput
from veapi.model import Cluster, Timing
from vecontroller.leader import acquire, init_cluster
from vecontroller.store import keys


async def test_the_cluster_record_is_written_once() -> None:
    store = ModelStore()
    first = await init_cluster(store, Cluster(name="rack", incarnation=4))
    second = await init_cluster(store, Cluster(name="rack"))
    assert first == second
    assert second.incarnation == 4
    term = await acquire(store, name="c", address="a", run_id="r", clock=ManualClock())
    assert term.incarnation == 4


@pytest.mark.parametrize("how", [Fail.APPLIED])
async def test_a_cluster_record_of_unknown_outcome_is_read_back(how: Fail) -> None:
    store = ModelStore()
    store.fail_writes(how)
    assert (await init_cluster(store, Cluster(name="rack"))).name == "rack"


async def test_another_clusters_store_is_refused() -> None:
    store = ModelStore()
    await init_cluster(store, Cluster(name="rack"))
    with pytest.raises(Conflict, match="rack"):
        await init_cluster(store, Cluster(name="other"))


async def test_times_that_let_a_ve_run_twice_are_refused() -> None:
    store = ModelStore()
    with pytest.raises(InvalidInput, match="timing"):
        await init_cluster(store, Cluster(name="rack", timing=Timing(move_after_s=10.0)))
    assert await store.get(keys.CLUSTER) is None
