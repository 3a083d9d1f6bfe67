"""What an agent does with a VE while the store that asks was restored and is not confirmed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.agenthost import U1, entry, host_set
from veagent import reconcile as r
from veagent.fence.gate import FenceOff, FenceView
from veagent.record import VERecord, confirmed, first_record, kept, started
from veagent.standstill import UNCONFIRMED, as_it_ran, next_action_unconfirmed, with_known_peers
from veapi.model import (
    Action,
    HostName,
    OnHostLoss,
    PeerHost,
    RootWish,
    SetEntry,
    SnapshotWish,
)

UP = started(first_record(entry(generation=5), 1_000_000), entry(generation=5), boot_id="b")
MOVABLE = entry(on_host_loss=OnHostLoss.RECREATE)


def seen(record: VERecord | None = UP, **changes: object) -> r.Observed:
    made = r.Observed(record=record, root=record is not None, image_held=True)
    return msgspec.structs.replace(made, **changes)


def changed(**fields: object) -> VERecord:
    return msgspec.structs.replace(UP, **fields)


ASKS = [
    entry(action=Action.STOP),
    entry(action=Action.KEEP),
    entry(action=Action.PURGE),
    entry(action=Action.RELEASE),
    entry(action=Action.FREEZE),
    entry(restart_seq=9),
    entry(root=RootWish(seq=9)),
    entry(root_since=9),
    entry(memory_bytes=1 << 30),
    entry(snapshots=(SnapshotWish(tag="a", seq=9, created_at=1.0),)),
]


@pytest.mark.parametrize("wanted", ASKS)
def test_what_runs_goes_on_whatever_the_store_asks(wanted: SetEntry) -> None:
    assert next_action_unconfirmed(wanted, seen(running=True)) == r.Nothing("Running")


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(
    "observed",
    [
        seen(None),
        seen(None, remains=True),
        seen(changed(up=False)),
        seen(changed(up=False, off=True)),
        seen(kept(UP, entry(action=Action.KEEP), 7)),
        seen(UP, root=False),
        seen(confirmed(changed(up=False), entry(action=Action.STOP))),
    ],
)
def test_what_is_down_stays_down(action: Action, observed: r.Observed) -> None:
    """A new one, one that was stopped, switched off or deleted since, one whose root is lost."""
    step = next_action_unconfirmed(entry(action=action), observed)
    assert step == r.Nothing(UNCONFIRMED)


def test_what_crashed_comes_up_again_after_its_pause() -> None:
    assert next_action_unconfirmed(entry(), seen()) == r.Start()
    assert next_action_unconfirmed(entry(), seen(wait_s=2.0)) == r.Wait(2.0)


@pytest.mark.parametrize(
    ("wanted", "record"),
    [
        (MOVABLE, UP),
        (entry(), changed(entry=MOVABLE)),
        (entry(action=Action.STOP), UP),
        (entry(action=Action.KEEP), UP),
        (entry(), changed(entry=entry(action=Action.KEEP))),
        (entry(root_since=9), UP),
    ],
)
def test_what_crashed_and_may_be_elsewhere_or_is_not_to_run_stays_down(
    wanted: SetEntry, record: VERecord
) -> None:
    assert next_action_unconfirmed(wanted, seen(record)) == r.Nothing(UNCONFIRMED)


def test_a_lease_that_ran_out_ends_a_fenced_ve_all_the_same() -> None:
    doomed = seen(running=True, fence=FenceView(doomed=True))
    assert next_action_unconfirmed(MOVABLE, doomed) == FenceOff()


@given(
    action=st.sampled_from(list(Action)),
    up=st.booleans(),
    off=st.booleans(),
    root=st.booleans(),
    running=st.booleans(),
    seq=st.integers(0, 2),
    generation=st.integers(1, 9),
)
def test_never_more_than_a_start(**case: object) -> None:
    record = changed(up=case["up"], off=case["off"])
    seq = int(str(case["seq"]))
    wanted = entry(
        action=Action(case["action"]),
        generation=case["generation"],
        root=RootWish(seq=seq),
        restart_seq=seq,
    )
    observed = seen(record, running=case["running"], root=case["root"])
    step = next_action_unconfirmed(wanted, observed)
    assert isinstance(step, r.Nothing | r.Start)
    assert not (observed.running and isinstance(step, r.Start))


def test_it_comes_up_as_it_ran_not_as_the_store_remembers_it() -> None:
    assert as_it_ran(entry(ip="10.66.9.9"), UP) == UP.entry
    assert as_it_ran(entry(), None) == entry()


def test_an_unconfirmed_set_takes_no_peer_away() -> None:
    def with_peers(revision: int, *names: str, unconfirmed: bool = False):
        peers = tuple(PeerHost(name=HostName(name), address=f"at-{revision}") for name in names)
        made = host_set(revision, entry(U1))
        return msgspec.structs.replace(made, peers=peers, unconfirmed=unconfirmed)

    held = with_peers(1, "h2", "h3")
    merged = with_known_peers(with_peers(2, "h2", "h4", unconfirmed=True), held)
    assert [(peer.name, peer.address) for peer in merged.peers] == [
        ("h2", "at-2"),
        ("h3", "at-1"),
        ("h4", "at-2"),
    ]
    newer = with_peers(2, "h2")
    assert with_known_peers(newer, held) == newer
