"""What hosts claim: in bounds it passes, out of bounds it is refused by the name of the field."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.world import make_facts
from veagent.storage import images
from veapi import codec
from veapi.errors import InvalidInput
from veapi.model import (
    EVENTS_KEPT,
    Action,
    Digest,
    Event,
    EventType,
    HeldImage,
    Resources,
    SetEntry,
    SnapshotStatus,
    Spec,
    Uid,
    VEReport,
    VEState,
    VEStatus,
)
from vecontroller import claims

LONG = "x" * (claims.TEXT_LIMIT_BYTES + 1)
IMAGE = HeldImage(digest=Digest("d"), blob_digest="b", size_bytes=1, blob_bytes=1)


def report(**status) -> VEReport:
    made = VEStatus(state=VEState.RUNNING, **status)
    return VEReport(uid=Uid("u"), name="n", project="p", status=made)


def event(at=1.0, **options) -> Event:
    return Event(**{"at": at, "type": EventType.NORMAL, "reason": "r", "message": "m", **options})


def test_what_a_host_says_usually_passes():
    claims.check_facts(make_facts(images=(IMAGE,) * claims.IMAGES_LIMIT))
    said = report(started_at=5.0, events=(event(),), addresses=("10.0.0.1",), restarts=2)
    assert claims.check_report(said) == said


@pytest.mark.parametrize("where", ["", "10.88.0.11:7481", "h1.rack:1", "[fd00::1]:65535"])
def test_a_host_says_where_its_metrics_are(where):
    claims.check_facts(make_facts(metrics_address=where))


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("cpu_millis", {"capacity": Resources(cpu_millis=2**53)}),
        ("memory_bytes", {"capacity": Resources(memory_bytes=-1)}),
        ("disk_bytes", {"capacity": Resources(disk_bytes=2**53 + 1)}),
        ("pids", {"capacity": Resources(pids=-1)}),
        ("cpu_millis", {"capacity": Resources(cpu_millis=round(1e300))}),
        ("peer_port", {"peer_port": 65_536}),
        ("peer_port", {"peer_port": 0}),
        ("peer_port", {"peer_port": -1}),
        ("labels", {"labels": {f"k{index}": "" for index in range(65)}}),
        ("labels", {"labels": {"k": LONG}}),
        ("facts", {"boot_id": LONG}),
        ("address", {"address": LONG}),
        ("address", {"address": ""}),
        ("address", {"address": "host.example"}),
        ("address", {"address": "10.0.0.1:7444"}),
        ("address", {"address": "10.0.0.1 "}),
        ("address", {"address": "010.0.0.1"}),
        ("address", {"address": "fd00::1"}),
        ("address", {"address": "0.0.0.0"}),
        ("address", {"address": "224.0.0.1"}),
        ("metrics_address", {"metrics_address": LONG}),
        ("metrics_address", {"metrics_address": "10.0.0.1"}),
        ("metrics_address", {"metrics_address": "10.0.0.1:"}),
        ("metrics_address", {"metrics_address": ":7481"}),
        ("metrics_address", {"metrics_address": "10.0.0.1:0"}),
        ("metrics_address", {"metrics_address": "10.0.0.1:65536"}),
        ("metrics_address", {"metrics_address": "10.0.0.1:7481\nx"}),
        ("metrics_address", {"metrics_address": "[fd00::1:7481"}),
        ("images", {"images": (IMAGE,) * (claims.IMAGES_LIMIT + 1)}),
        ("size_bytes", {"images": (msgspec.structs.replace(IMAGE, size_bytes=-1),)}),
    ],
)
def test_facts_out_of_bounds_are_refused(field, options):
    with pytest.raises(InvalidInput, match=field) as refused:
        claims.check_facts(make_facts(**options))
    assert refused.value.hint


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("started_at", {"started_at": -1.0}),
        ("started_at", {"started_at": 1e18}),
        ("event", {"events": (event(8e9),)}),
        ("event.host", {"events": (event(host=LONG),)}),
        ("addresses", {"addresses": ("a",) * 17}),
        ("restarts", {"restarts": -1}),
        ("observed_generation", {"observed_generation": 2**60}),
    ],
)
def test_a_report_out_of_bounds_is_refused(field, status):
    with pytest.raises(InvalidInput, match=field):
        claims.check_report(report(**status))


def snapshot(**options) -> SnapshotStatus:
    return SnapshotStatus(**{"tag": "t", "seq": 1, "taken_at": 1.0, **options})


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("oom_kills", {"oom_kills": -1}),
        ("observed_root_seq", {"observed_root_seq": 2**60}),
        ("disk_used_bytes", {"disk_used_bytes": -1}),
        ("cpus", {"cpus": "0-"}),
        ("cpus", {"cpus": "all"}),
        ("cpus", {"cpus": "0,1\n"}),
        ("cpus", {"cpus": "1," * 2000}),
        ("snapshots", {"snapshots": (snapshot(),) * (claims.SNAPSHOTS_LIMIT + 1)}),
        ("snapshots", {"snapshots": (snapshot(tag="x" * 129),)}),
        ("snapshots.seq", {"snapshots": (snapshot(seq=-1),)}),
        ("snapshots.size_bytes", {"snapshots": (snapshot(size_bytes=2**60),)}),
        ("snapshots.taken_at", {"snapshots": (snapshot(taken_at=1e12),)}),
        ("snapshots.image_digest", {"snapshots": (snapshot(image_digest="x" * 10_000),)}),
    ],
)
def test_snapshots_and_counts_out_of_bounds_are_refused(field, status):
    with pytest.raises(InvalidInput, match=field):
        claims.check_report(report(**status))


def test_snapshots_and_processors_as_hosts_say_them_pass():
    there = snapshot(image_digest="sha256:1")
    said = report(cpus="0,2-3,10-11", snapshots=(there,), oom_kills=3)
    assert codec.report_in(codec.report_out(said)).status.snapshots == (there,)
    assert claims.check_report(said) == said
    long = claims.check_report(report(snapshots=(snapshot(error="y" * 10_000),)))
    assert len(long.status.snapshots[0].error) == claims.ERROR_LIMIT_BYTES


def orphan(**options) -> VEReport:
    spec = Spec(image="i", cpu_millis=1, memory_bytes=1, disk_bytes=1, pids=1)
    entry = {
        "uid": Uid("u"), "name": "n", "project": "p", "action": Action.RUN, "spec": spec,
        "generation": 1, "placement_generation": 1, "restart_seq": 0, "stop_timeout_s": 1.0,
        "image_digest": Digest("d"), "ip": "", "mac": "",
    }  # fmt: skip
    return msgspec.structs.replace(report(), orphan=True, entry=SetEntry(**{**entry, **options}))


def test_only_an_orphan_says_what_was_asked_of_it():
    said = orphan()
    assert claims.check_report(said) == said
    ours = msgspec.structs.replace(said, orphan=False)
    assert claims.check_report(ours).entry is None


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("bytes are more", {"labels": {f"k{index}": "v" * 200 for index in range(100)}}),
        ("generation", {"generation": -1}),
        ("run_generation", {"run_generation": 2**60}),
        ("restart_seq", {"restart_seq": -5}),
        (
            "spec.memory_bytes",
            {"spec": Spec(image="", cpu_millis=1, memory_bytes=-1, disk_bytes=1, pids=1)},
        ),
    ],
)
def test_what_an_orphan_was_asked_is_bounded(field, options):
    with pytest.raises(InvalidInput, match=field):
        claims.check_report(orphan(**options))


def test_prose_is_cut_and_of_many_events_the_newest_are_kept():
    events = tuple(event(float(at), message=LONG) for at in range(EVENTS_KEPT + 5))
    status = claims.check_report(report(message="ä" * 1000, events=events)).status
    assert len(status.message.encode()) <= claims.TEXT_LIMIT_BYTES
    assert [kept.at for kept in status.events] == [float(at) for at in range(5, EVENTS_KEPT + 5)]
    assert len(status.events[0].message) == claims.TEXT_LIMIT_BYTES


@given(st.floats(min_value=claims.EARLIEST_S, max_value=claims.LATEST_S))
def test_times_are_as_they_come_back_from_the_store(at):
    checked = claims.check_report(report(started_at=at, events=(event(at),)))
    assert codec.report_in(codec.report_out(checked)) == checked


@given(st.integers(min_value=0, max_value=claims.CPU_LIMIT_MILLIS))
def test_an_allowed_capacity_comes_back_from_the_store_as_it_went(cpu):
    facts = make_facts(capacity=Resources(cpu_millis=cpu))
    claims.check_facts(facts)
    assert codec.facts_in(codec.facts_out(facts)) == facts


def test_a_host_never_holds_more_images_than_it_may_tell_of() -> None:
    at_once = 4  # those that were let in while there was room
    assert images.CROWDED < images.MOST_HELD < claims.IMAGES_LIMIT - at_once
