"""Up to which number an agent says that wishes for snapshots are answered."""

import pytest

from veagent.reconcile import Nothing
from veagent.record import VERecord
from veagent.snapshots import TakeSnapshot, answered_seq
from veapi.model import Action, Digest, SetEntry, SnapshotWish, Spec, Uid

UID = Uid("0b87ab3a-a8e6-48d3-8681-d0702b17df12")
IDLE = Nothing("Running")


def wanted(*seqs: int) -> SetEntry:
    """Wishes of these numbers; negative: taken back."""
    return SetEntry(
        uid=UID,
        name="web",
        project="default",
        action=Action.RUN,
        spec=Spec(image="d", cpu_millis=1, memory_bytes=1, disk_bytes=1, pids=1),
        generation=1,
        placement_generation=1,
        restart_seq=0,
        stop_timeout_s=1.0,
        image_digest=Digest(""),
        ip="",
        mac="",
        snapshots=tuple(
            SnapshotWish(tag=f"s{abs(seq)}", seq=abs(seq), created_at=0.0, deleting=seq < 0)
            for seq in seqs
        ),
    )


@pytest.mark.parametrize(
    ("taken", "wishes", "doing", "answered"),
    [
        (0, (), IDLE, 0),
        (4, (2, 5), IDLE, 4),
        (4, (-5,), IDLE, 5),
        (4, (5, -6), IDLE, 4),
        (4, (-5, 6, -7), IDLE, 5),
        (4, (-5,), TakeSnapshot("s5", 5), 4),
        (5, (-5,), TakeSnapshot("s5", 5), 5),
        (4, (-5, -6), TakeSnapshot("s6", 6), 5),
    ],
)
def test_what_is_taken_back_is_answered_unless_it_may_still_be_taken(
    taken: int, wishes: tuple[int, ...], doing: object, answered: int
) -> None:
    record = VERecord(uid=UID, name="web", project="default", id_base=1, snapshot_seq=taken)
    assert answered_seq(record, wanted(*wishes), doing) == answered


def test_an_orphan_says_what_was_done() -> None:
    record = VERecord(uid=UID, name="web", project="default", id_base=1, snapshot_seq=3)
    assert answered_seq(record, None, IDLE) == 3
