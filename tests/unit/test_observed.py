import msgspec
import pytest

from kit.world import held, make_deleted, make_facts, make_placement, make_ve, make_view
from veapi.model import Event, EventType, HostName, Uid, VEReport, VEState, VEStatus
from vecontroller import observed
from vecontroller.observed import TEXT_LIMIT, Change, of_facts, packed
from vecontroller.removal import MOST_WRITES
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put

H1 = HostName("h1")
U1 = Uid("u1")
RUNNING = VEStatus(state=VEState.RUNNING, host="h1", placement_generation=1)


def of_report(view, host, report, *, purge_at=900.0):
    return observed.of_report(view, host, report, purge_at=purge_at)


def report(status=RUNNING, **options):
    return VEReport(uid=U1, name="n-u1", project="default", status=status, **options)


def placed(ve=None, **options):
    return make_view(ves=[ve or make_ve()], placements={"u1": make_placement()}, **options)


def deleting(**options):
    view = placed(make_ve(delete_requested_at=5.0), **options)
    view.names[("default", "n-u1")] = held(U1)
    hold(view, "10.66.0.9")
    return view


def hold(view, *ips):
    for ip in ips:
        view.addresses["default", ip] = held(U1)
        view.addresses_of[U1].add(("default", ip))


OLD, NOW = "10.66.0.5", "10.66.0.9"


def moving(**options):
    """A VE that shall have another address as of generation 2."""
    view = placed(make_ve(generation=2, ip=NOW), **options)
    hold(view, OLD, NOW)
    return view


def says(state=VEState.RUNNING, *, generation=2, uses=NOW, **options):
    return msgspec.structs.replace(
        RUNNING, state=state, observed_generation=generation, addresses=(uses,), **options
    )


@pytest.mark.parametrize("status", [says(), says(VEState.STOPPED, uses=OLD)])
def test_an_old_address_is_free_once_the_host_says_that_it_is_not_used(status):
    change = of_report(moving(), H1, report(status))
    assert change is not None
    assert Delete(key=keys.address("default", OLD)) in change.writes
    assert all(write.key != keys.address("default", NOW) for write in change.writes)
    assert Guard(key=keys.ve_spec(U1), mod_revision=5) in change.guards


@pytest.mark.parametrize(
    "status",
    [
        says(generation=1, uses=OLD),
        says(VEState.STOPPED, generation=1, uses=OLD),
        says(uses=OLD, reason="LimitsRefused"),
        says(VEState.CREATING, uses=OLD),
    ],
)
def test_an_old_address_stays_held_while_the_host_may_use_it(status):
    change = of_report(moving(), H1, report(status))
    assert change is not None
    assert [type(write) for write in change.writes] == [Put]


def test_an_old_address_is_freed_also_when_the_status_is_known_already():
    change = of_report(moving(statuses={"u1": says()}), H1, report(says()))
    assert change is not None
    assert change.writes == (Delete(key=keys.address("default", OLD)),)


def test_a_removal_takes_all_addresses_along():
    view = deleting()
    hold(view, OLD, "10.66.0.6", "10.66.0.7")
    change = of_report(view, H1, report(gone=True))
    assert change is not None
    gone = {write.key for write in change.writes}
    assert {keys.address("default", ip) for ip in (OLD, NOW, "10.66.0.6", "10.66.0.7")} <= gone
    assert len(change.writes) <= MOST_WRITES


def written(change):
    (put,) = change.writes
    return values.decode_status(put.value)


def test_a_new_status_is_written_guarded_by_placement_and_status():
    change = of_report(placed(), H1, report())
    assert change is not None
    assert written(change) == RUNNING
    assert set(change.guards) == {
        Guard(key=keys.ve_placement(U1), mod_revision=5),
        Guard(key=keys.ve_status(U1), mod_revision=0),
    }


def test_what_the_store_shows_already_is_not_written_again():
    assert of_report(placed(statuses={"u1": RUNNING}), H1, report()) is None


def test_a_status_of_another_placement_is_not_written():
    older = msgspec.structs.replace(RUNNING, placement_generation=0)
    assert of_report(placed(), H1, report(older)) is None


def test_a_ve_that_is_not_placed_on_the_reporting_host_is_not_written():
    assert of_report(placed(), HostName("h2"), report()) is None
    assert of_report(make_view(ves=[make_ve()]), H1, report()) is None
    assert of_report(make_view(), H1, report(gone=True)) is None


def test_a_host_speaks_only_of_itself_and_not_at_any_length():
    long = VEStatus(
        state=VEState.FAILED,
        host="h9",
        message="x" * 10_000,
        placement_generation=1,
        events=tuple(
            Event(at=float(index), type=EventType.NORMAL, reason="R", message="y" * 10_000)
            for index in range(40)
        ),
    )
    status = written(of_report(placed(), H1, report(long)))
    assert (status.host, len(status.message)) == ("h1", TEXT_LIMIT)
    assert [event.at for event in status.events] == [float(index) for index in range(20, 40)]
    assert len(status.events[0].message) == TEXT_LIMIT


def test_the_last_of_a_deleted_ve_takes_all_its_keys_along():
    change = of_report(deleting(), H1, report(gone=True))
    assert change is not None
    assert {write.key for write in change.writes} == {
        keys.ve_spec(U1),
        keys.ve_placement(U1),
        keys.ve_status(U1),
        keys.ve_name("default", "n-u1"),
        keys.address("default", "10.66.0.9"),
    }
    assert all(isinstance(write, Delete) for write in change.writes)
    assert {guard.key for guard in change.guards} == {keys.ve_spec(U1), keys.ve_placement(U1)}


def test_a_name_or_address_that_another_ve_holds_by_now_stays():
    view = deleting()
    view.names[("default", "n-u1")] = held(Uid("u2"))
    view.addresses[("default", "10.66.0.9")] = held(Uid("u2"))
    view.addresses_of.clear()
    change = of_report(view, H1, report(gone=True))
    assert change is not None
    assert {write.key for write in change.writes} == {
        keys.ve_spec(U1),
        keys.ve_placement(U1),
        keys.ve_status(U1),
    }


KEPT = VEStatus(state=VEState.STOPPED, host="h1", placement_generation=1, disk_used_bytes=7)


def test_a_ve_that_is_kept_moves_in_one_transaction():
    view = deleting(statuses={"u1": RUNNING})
    change = of_report(view, H1, report(KEPT, kept=True))
    assert change is not None
    *gone, put = change.writes
    assert {write.key for write in gone} == {
        keys.ve_spec(U1),
        keys.ve_placement(U1),
        keys.ve_status(U1),
        keys.ve_name("default", "n-u1"),
        keys.address("default", "10.66.0.9"),
    }
    assert isinstance(put, Put)
    kept = values.decode_deleted(put.value)
    assert (kept.ve.uid, kept.placement.host, kept.purging) == (U1, "h1", False)
    assert (kept.deleted_at, kept.purge_at, kept.disk_used_bytes) == (5.0, 900.0, 7)
    assert Guard(key=keys.ve_deleted(U1), mod_revision=0) in change.guards
    assert len(change.writes) <= MOST_WRITES


def test_a_host_that_never_had_anything_of_it_keeps_nothing():
    nothing = VEStatus(state=VEState.STOPPED, host="h1", placement_generation=1)
    change = of_report(deleting(), H1, report(nothing, gone=True))
    assert change is not None
    assert all(isinstance(write, Delete) for write in change.writes)
    kept = of_report(deleting(), H1, report(nothing, kept=True))
    assert kept is not None
    assert keys.ve_deleted(U1) in [write.key for write in kept.writes]


def test_the_end_of_an_earlier_stay_is_not_the_end_of_a_ve_that_was_moved_back_and_is_deleted():
    view = deleting()
    view.placements[U1] = held(make_placement(generation=3))
    assert of_report(view, H1, report(KEPT, kept=True)) is None
    assert of_report(view, H1, report(gone=True)) is None
    now = msgspec.structs.replace(KEPT, placement_generation=3)
    assert of_report(view, H1, report(now, kept=True)) is not None
    assert of_report(view, H1, report(now, gone=True)) is not None


def test_a_ve_is_not_kept_that_nobody_deletes_or_that_is_to_be_purged():
    assert of_report(placed(), H1, report(KEPT, kept=True)) is None
    purged = placed(make_ve(delete_requested_at=5.0, purge=True))
    assert of_report(purged, H1, report(KEPT, kept=True)) is None


def test_what_is_left_of_a_deleted_ve_goes_when_its_host_says_so_and_only_then():
    view = make_view(deleted=[make_deleted("u1", purging=True)])
    assert of_report(view, H1, report(KEPT, kept=True)) is None
    assert of_report(view, HostName("h2"), report(gone=True)) is None
    change = of_report(view, H1, report(gone=True))
    assert change is not None
    assert change.writes == (Delete(key=keys.ve_deleted(U1)),)
    assert change.guards == (Guard(key=keys.ve_deleted(U1), mod_revision=5),)


def test_a_ve_that_nobody_deletes_does_not_go_because_a_host_lost_it():
    assert of_report(placed(), H1, report(gone=True)) is None


def test_what_a_newer_version_wrote_is_left_alone():
    view = placed()
    view.quarantined[keys.ve_status(U1)] = 4
    assert of_report(view, H1, report()) is None


def test_facts_are_written_when_they_differ():
    facts = make_facts()
    fresh = of_facts(make_view(), H1, facts)
    assert fresh is not None
    assert fresh.guards == (Guard(key=keys.host_status(H1), mod_revision=0),)
    known = make_view(hosts={"h1": facts})
    assert of_facts(known, H1, facts) is None
    newer = of_facts(known, H1, make_facts(boot_id="other"))
    assert newer is not None
    assert newer.guards == (Guard(key=keys.host_status(H1), mod_revision=5),)


def change_of(index, guards=2, writes=1):
    return Change(
        tuple(Guard(key=f"g{index}-{n}", mod_revision=1) for n in range(guards)),
        tuple(Put(key=f"w{index}-{n}", value=b"") for n in range(writes)),
    )


def test_transactions_stay_within_what_etcd_takes():
    changes = [change_of(index) for index in range(100)] + [
        change_of(100 + index, writes=5) for index in range(40)
    ]
    groups = list(packed(changes, at_most=40))
    assert [change for group in groups for change in group] == changes
    for group in groups:
        assert len(group) <= 40
        assert sum(len(change.guards) for change in group) <= 80
        assert sum(len(change.writes) for change in group) <= 80


def test_one_by_one_on_request():
    assert [len(group) for group in packed([change_of(1), change_of(2)], at_most=1)] == [1, 1]
