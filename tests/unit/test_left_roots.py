"""What a moved VE left on the host that was lost: told to the host, counted, shown, purged."""

from collections.abc import Sequence

import msgspec

from kit.failing import H1, H2, U1, armed, fenced_ve, fencing_facts
from kit.world import GIB, held, make_placement, make_view
from veapi.model import (
    Action,
    Deleted,
    HostName,
    Order,
    Resources,
    SetEntry,
    VEReport,
    VEState,
    VEStatus,
)
from vecontroller import fold, hostset
from vecontroller.fold import Changes
from vecontroller.lifecycle import deleted
from vecontroller.observed import of_report
from vecontroller.placement import committed
from vecontroller.purging import due, key_of
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Put, StoreItem
from vecontroller.view import View

VE = fenced_ve()
LEFT = Deleted(
    ve=VE,
    placement=make_placement("h1"),
    deleted_at=100.0,
    purge_at=900.0,
    left="host h1 was lost",
    unconfirmed=True,
)
KEPT = msgspec.structs.replace(LEFT, unconfirmed=False, disk_used_bytes=GIB // 2)


def moved_view(left: Deleted = LEFT) -> View:
    view = make_view(
        ves=[VE],
        placements={"u1": make_placement("h2", generation=2, root_since=2)},
        statuses={"u1": armed(placement_generation=2)},
        hosts={H1: fencing_facts(images=False), H2: fencing_facts(images=False)},
    )
    view.left[H1, U1] = held(left)
    view.left_on[H1].add(U1)
    return view


def entries(view: View, host: HostName) -> Sequence[SetEntry]:
    return hostset.build(view, host, order=Order()).entries


def test_the_lost_host_is_to_keep_it_under_its_placement_of_then_and_to_kill_it_at_once():
    (entry,) = entries(moved_view(), H1)
    assert (entry.action, entry.placement_generation, entry.stop_timeout_s) == (Action.KEEP, 1, 0)
    (there,) = entries(moved_view(), H2)
    assert (there.action, there.placement_generation, there.root_since) == (Action.RUN, 2, 2)
    assert there.policy_generation == VE.policy_generation


def test_what_is_purged_is_removed_there():
    (entry,) = entries(moved_view(msgspec.structs.replace(KEPT, purging=True)), H1)
    assert entry.action is Action.PURGE


def test_a_host_that_has_the_ve_again_is_told_of_that_alone():
    view = moved_view()
    view.placed_on[H1].add(U1)
    view.placements[U1] = held(make_placement("h1", generation=3))
    assert [entry.action for entry in entries(view, H1)] == [Action.RUN]


def test_all_of_it_counts_on_the_lost_host_until_that_says_that_it_is_down_then_its_disk():
    assert committed(moved_view(), H1) == VE.spec.request
    assert committed(moved_view(KEPT), H1) == Resources(disk_bytes=GIB // 2)


def report(**changes) -> VEReport:
    status = VEStatus(state=VEState.STOPPED, placement_generation=1, disk_used_bytes=7)
    fields = {"uid": U1, "name": "n-u1", "project": "default", "status": status}
    return VEReport(**{**fields, **changes})


def test_that_it_is_down_is_noted_and_its_time_begins():
    change = of_report(moved_view(), H1, report(kept=True), purge_at=5000.0)
    assert change is not None
    (put,) = change.writes
    assert isinstance(put, Put)
    stored = values.decode_deleted(put.value)
    assert (stored.unconfirmed, stored.purge_at, stored.disk_used_bytes) == (False, 5000.0, 7)
    assert of_report(moved_view(KEPT), H1, report(kept=True), purge_at=5000.0) is None


def test_what_is_gone_from_the_lost_host_is_forgotten_and_the_ve_stays():
    change = of_report(moved_view(), H1, report(gone=True), purge_at=5000.0)
    assert change is not None
    assert change.writes == (Delete(key=keys.ve_left(H1, U1)),)


def test_nothing_that_the_lost_host_says_of_it_is_the_ves_status():
    running = VEStatus(state=VEState.RUNNING, placement_generation=2)
    assert of_report(moved_view(), H1, report(status=running), purge_at=5000.0) is None


def test_its_time_does_not_run_out_before_the_host_was_seen_again():
    assert due(moved_view(), 1000.0) == []
    (found,) = due(moved_view(KEPT), 1000.0)
    assert key_of(found.value) == keys.ve_left(H1, U1)


def test_it_is_shown_with_why_and_what_the_host_has_said():
    shown = deleted(LEFT)
    assert (shown.state, shown.reason) == (VEState.DELETED, "Left")
    assert "host h1 was lost; the host has not answered since" in shown.message
    assert "kept for a while" in deleted(KEPT).message


def test_the_view_follows_the_store():
    view, changes = View(), Changes()
    key = keys.ve_left(H1, U1)
    item = StoreItem(key=key, value=values.encode_deleted(LEFT), mod_revision=4, create_revision=4)
    fold.apply(view, key, item, changes)
    assert view.left[H1, U1].value == LEFT
    assert view.left_on == {H1: {U1}}
    assert changes.placed == {H1}
    fold.apply(view, key, None, changes)
    assert (view.left, dict(view.left_on)) == ({}, {})
