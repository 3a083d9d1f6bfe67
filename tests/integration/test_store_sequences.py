"""The model of etcd, on which all simulation stands, answers as a real one does, whatever is asked in whatever order."""

import os
from random import SystemRandom

import pytest

from kit.etcds import forget_data, lasting_etcd, store_of  # noqa: F401 - a fixture
from kit.modelstore import ModelStore
from kit.storesequences import told

SEQUENCES = int(os.environ.get("VERACK_SEQUENCES", "100"))
"""`make sim-etcd` takes 5,000."""
AT_ONCE = 100


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with lasting_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(max(1, SEQUENCES // AT_ONCE)))
async def test_the_model_and_etcd_tell_the_same(etcd, share: int) -> None:
    first = SystemRandom().randrange(1 << 40)
    async with store_of(etcd) as real:
        for seed in range(first, first + min(AT_ONCE, SEQUENCES)):
            model = ModelStore()

            async def compact(revision: int, model: ModelStore = model) -> None:
                model.etcd.compact(revision)

            expected = await told(real, real.compact, seed)
            assert await told(model, compact, seed) == expected, f"seed {seed}"
