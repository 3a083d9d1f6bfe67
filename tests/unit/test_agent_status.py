"""What an agent says of a VE at moments between two steps."""

import pytest

from kit.agenthost import U1, U2, entry
from veagent.reconcile import Confirm, Step
from veagent.record import VERecord, first_record
from veagent.status import Sight, report_of
from veapi.model import Action, RootWish, SetEntry, VEState

CLONE = entry(U2, action=Action.STOP, root=RootWish(from_uid=U1))


def sight(wanted: SetEntry, record: VERecord | None, *, root: bool, step: Step) -> Sight:
    return Sight(
        uid=wanted.uid,
        host="h1",
        wanted=wanted,
        record=record,
        root=root,
        running=None,
        step=step,
        trouble=None,
        image_trouble="",
    )


@pytest.mark.parametrize("record", [None, first_record(CLONE, 1_000_000)])
def test_a_clone_is_not_made_before_it_has_its_disk(record: VERecord | None) -> None:
    """Until then nobody may remove what it is made of."""
    said = report_of(sight(CLONE, record, root=False, step=Confirm())).status
    assert said.state is VEState.CREATING
    said = report_of(sight(CLONE, record, root=True, step=Confirm())).status
    assert said.state is VEState.STOPPED


def test_a_stopped_ve_of_an_image_gets_its_disk_at_its_first_start() -> None:
    said = report_of(sight(entry(action=Action.STOP), None, root=False, step=Confirm())).status
    assert said.state is VEState.STOPPED
