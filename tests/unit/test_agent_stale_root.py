"""A root of before the VE was moved away and came back."""

import msgspec
import pytest

from kit.agenthost import entry
from veagent import reconcile as r
from veagent.record import first_record, started, with_disk
from veapi.model import Limits

NEW = msgspec.structs.replace(first_record(entry(), 1_000_000), limits=with_disk(Limits(), 1 << 30))
UP = started(NEW, entry(), boot_id="b")
DOWN = msgspec.structs.replace(UP, up=False)
RUNNING = r.Observed(record=UP, running=True, root=True, image_held=True)
STOPPED = r.Observed(record=DOWN, root=True, image_held=True)
STALE_ROOT = [
    ("down", STOPPED, r.ReplaceRoot(0)),
    ("runs", RUNNING, r.ReplaceRoot(0)),
    ("down, image missing", msgspec.structs.replace(STOPPED, image_held=False), r.AwaitImage()),
    ("runs, image missing", msgspec.structs.replace(RUNNING, image_held=False), r.Stop(0)),
    ("was up, image missing", r.Observed(record=UP, root=True), r.AwaitImage()),
]


@pytest.mark.parametrize(
    ("observed", "step"), [each[1:] for each in STALE_ROOT], ids=[each[0] for each in STALE_ROOT]
)
def test_a_root_of_before_the_ve_lived_elsewhere_is_never_used_again(
    observed: r.Observed, step: r.Step
) -> None:
    wanted = msgspec.structs.replace(entry(), placement_generation=3, root_since=3)
    assert r.next_action(wanted, observed) == step


def test_a_root_of_the_stay_that_counts_is_used() -> None:
    wanted = msgspec.structs.replace(entry(), placement_generation=3, root_since=2)
    record = msgspec.structs.replace(DOWN, placement_generation=2)
    assert r.next_action(wanted, msgspec.structs.replace(STOPPED, record=record)) == r.Start()
    made = msgspec.structs.replace(DOWN, root_since=2)
    assert r.next_action(wanted, msgspec.structs.replace(STOPPED, record=made)) == r.Start()
