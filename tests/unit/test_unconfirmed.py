"""A restored store: what stands still before an operator confirms it, and what is said to come of that."""

from typing import Any

from kit.agenthost import entry
from kit.world import held, make_deleted, make_facts, make_placement, make_ve, make_view
from veapi.model import (
    Action,
    Cluster,
    HostName,
    Order,
    RootWish,
    Run,
    SetEntry,
    Uid,
    VEReport,
    VEState,
    VEStatus,
)
from veapi.v1 import (
    api_pb2,
    cluster_pb2,
    group_pb2,
    hostlife_pb2,
    plan_pb2,
    scheduler_pb2,
    session_pb2,
    simulate_pb2,
)
from vecontroller import hostset
from vecontroller.api import aftermath
from vecontroller.api.standstill import DURING_STANDSTILL
from vecontroller.observed import of_report
from vecontroller.store import values
from vecontroller.view import View

RESTORED = Cluster(name="rack", incarnation=2)
H1, H2 = HostName("h1"), HostName("h2")
FILES = (
    *(api_pb2, cluster_pb2, group_pb2, hostlife_pb2, plan_pb2),
    *(scheduler_pb2, session_pb2, simulate_pb2),
)


def restored(**options: Any) -> View:
    view = make_view(hosts={"h1": make_facts(), "h2": make_facts()}, **options)
    view.cluster = held(RESTORED)
    return view


def status(state: VEState = VEState.RUNNING, **options: Any) -> VEStatus:
    return VEStatus(state=state, host="h1", placement_generation=1, **options)


def reported(
    uid: str, state: VEState = VEState.RUNNING, *, asked: SetEntry | None = None, **options: bool
) -> VEReport:
    return VEReport(
        uid=Uid(uid),
        name=f"n-{uid}",
        project="default",
        status=status(state),
        entry=asked,
        **options,
    )


def said(*, deaf: HostName | None = None, **orphans: VEReport) -> aftermath.Said:
    """Every host is heard but `deaf`; each has one orphan at most."""
    return aftermath.Said(
        heard=lambda host: host != deaf,
        orphans=lambda host: (orphans[host],) if host in orphans else (),
    )


def test_a_record_without_the_word_is_of_a_store_that_was_never_restored() -> None:
    old = values.decode_cluster(
        values.encode_cluster(Cluster(name="rack", confirmed_incarnation=0))
    )
    assert (old.incarnation, old.confirmed_incarnation) == (1, 1)
    assert not hostset.build(make_view(), H1, order=Order()).unconfirmed
    assert values.decode_cluster(values.encode_cluster(RESTORED)) == RESTORED
    assert hostset.build(restored(), H1, order=Order()).unconfirmed


def test_no_word_of_a_host_takes_anything_away_before_the_store_is_confirmed() -> None:
    ve = make_ve("u1", delete_requested_at=1.0)
    options = {
        "ves": [ve],
        "placements": {"u1": make_placement()},
        "deleted": [make_deleted("u2")],
    }
    view = restored(**options)
    for word in (
        reported("u1", gone=True),
        reported("u1", VEState.STOPPED, kept=True),
        reported("u2", gone=True),
    ):
        assert of_report(view, H1, word, purge_at=9.0) is None
        view.cluster = held(Cluster(name="rack"))
        assert of_report(view, H1, word, purge_at=9.0) is not None
        view.cluster = held(RESTORED)
    assert of_report(view, H1, reported("u1"), purge_at=9.0) is not None


def test_every_call_is_refused_meanwhile_but_those_that_only_look() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert methods >= DURING_STANDSTILL
    changes = {name.rpartition("/")[2] for name in methods - DURING_STANDSTILL}
    assert {"Create", "Set", "Delete", "Import", "Adopt", "Purge", "Scale", "Remove"} <= changes
    looks = {name.rpartition("/")[2] for name in DURING_STANDSTILL}
    assert not looks & {"Create", "Set", "Delete", "Apply", "Restore", "Rebuild", "Undelete"}


def test_what_would_come_of_it_is_told_by_what_the_host_has() -> None:
    ves = {
        "starts": make_ve("starts"),
        "off": make_ve("off"),
        "runs": make_ve("runs"),
        "again": make_ve("again", restart_seq=3),
        "anew": make_ve("anew", root=RootWish(seq=2)),
        "stops": make_ve("stops", run=Run.STOPPED),
        "kept": make_ve("kept", delete_requested_at=1.0),
        "goes": make_ve("goes", delete_requested_at=1.0, purge=True),
    }
    statuses = {uid: status() for uid in ves if uid not in ("starts", "off")}
    statuses["off"] = status(VEState.STOPPED, reason="PoweredOff")
    view = restored(
        ves=ves.values(), placements={uid: make_placement() for uid in ves}, statuses=statuses
    )
    found = aftermath.on_host(view, H1, said(h1=reported("later")))

    def named(*uids: str) -> list[str]:
        return sorted(f"{ves[uid].project}/{ves[uid].name}" for uid in uids)

    assert sorted(found.starts) == named("starts")
    assert sorted(found.restarts) == named("again", "anew")
    assert sorted(found.stops) == named("kept", "stops")
    assert sorted(found.removes) == named("goes")
    assert (found.stays, found.orphans) == ([], ["default/n-later"])


def test_what_was_moved_since_the_backup_stays_where_it_runs() -> None:
    view = restored(ves=[make_ve("u1")], placements={"u1": make_placement("h1")})
    asked = entry(placement_generation=4, root_since=4)

    told = said(h2=reported("u1", asked=asked, orphan=True))
    (stray,) = aftermath.strays_of(view, told)
    assert (stray.uid, stray.placement.host) == ("u1", H2)
    assert (stray.placement.generation, stray.placement.root_since) == (4, 4)
    assert aftermath.on_host(view, H1, told).starts == []
    assert aftermath.on_host(view, H2, told).stays == ["default/n-u1"]


def test_one_that_was_killed_with_its_hosts_lease_stays_where_it_was_last() -> None:
    """Fenced ones don't outlive the store; started where they were before, they would have the root of then."""
    view = restored(ves=[make_ve("u1")], placements={"u1": make_placement("h1")})
    asked = entry(placement_generation=2)
    left = reported("u1", VEState.STOPPED, asked=entry(action=Action.KEEP, placement_generation=2))
    down = reported("u1", VEState.STOPPED, asked=asked)
    (stray,) = aftermath.strays_of(view, said(h2=down))
    assert (stray.placement.host, stray.placement.generation) == (H2, 2)
    assert aftermath.strays_of(view, said(h2=left)) == []
    older = reported("u1", VEState.STOPPED, asked=entry(placement_generation=1))
    assert aftermath.strays_of(view, said(h2=older)) == []


def test_what_runs_where_the_store_has_it_is_left_there() -> None:
    """A host that was away when it was moved back may still hold what it had of it."""
    down = reported("u1", VEState.STOPPED, asked=entry(placement_generation=2))
    view = restored(
        ves=[make_ve("u1")], placements={"u1": make_placement("h1")}, statuses={"u1": status()}
    )
    assert aftermath.strays_of(view, said(h2=down)) == []
    assert len(aftermath.strays_of(view, said(h2=down, deaf=H1))) == 1


def test_of_two_hosts_that_have_it_the_one_where_it_runs_counts_then_the_later_one() -> None:
    view = restored(ves=[make_ve("u1")], placements={"u1": make_placement("h9")})
    later = reported("u1", VEState.STOPPED, asked=entry(placement_generation=9))
    runs = reported("u1", asked=entry(placement_generation=2))
    for orphans in (said(h1=later, h2=runs), said(h2=runs, h1=later)):
        (stray,) = aftermath.strays_of(view, orphans)
        assert stray.placement.host == H2
    down = reported("u1", VEState.STOPPED, asked=entry(placement_generation=2))
    (stray,) = aftermath.strays_of(view, said(h1=later, h2=down))
    assert stray.placement.host == H1


def test_what_is_down_by_an_unknown_word_or_unknown_to_the_store_is_no_stray() -> None:
    view = restored(ves=[make_ve("u1")], placements={"u1": make_placement("h1")})
    assert aftermath.strays_of(view, said(h2=reported("u1", VEState.STOPPED))) == []
    assert aftermath.strays_of(view, said(h2=reported("u9"))) == []


def test_a_host_that_is_only_known_by_its_ves_is_asked_for_too() -> None:
    view = restored(ves=[make_ve("u1")], placements={"u1": make_placement("h9")})
    assert aftermath.hosts_of(view) == ["h1", "h2", "h9"]
    assert aftermath.unplaced(restored(ves=[make_ve("u1", name="web")])) == ["default/web"]
