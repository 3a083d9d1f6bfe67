"""Keys and values of the store: they come back as they went, and what is not ours is refused."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.world import DIGEST, make_facts, make_placement, make_ve
from veapi.model import (
    VE,
    Cluster,
    Digest,
    Event,
    EventType,
    HeldImage,
    HostFacts,
    HostName,
    Image,
    Placement,
    Project,
    Resources,
    Run,
    Spec,
    Uid,
    VEState,
    VEStatus,
)
from veapi.v1 import store_pb2
from vecontroller.store import keys, values
from vecontroller.store.keys import Kind
from vecontroller.store.values import Leader, Ref, Unreadable

words = st.integers(0, 2**60).map("w-{:x}".format)
"""No two fields are likely to hold the same; drawn at once and not letter by letter."""
counts = st.integers(min_value=0, max_value=2**53)
# As the wire has them: whole microseconds.
times = st.builds(
    lambda seconds, micros: seconds + micros * 1000 / 1e9,
    st.integers(min_value=0, max_value=4_000_000_000),
    st.integers(min_value=0, max_value=999_999),
)
specs = st.builds(
    Spec,
    image=words,
    cpu_millis=st.integers(min_value=1, max_value=10_000_000),
    memory_bytes=counts,
    disk_bytes=counts,
    pids=counts,
    run=st.sampled_from(Run),
    ip=words,
    host=words,
    require=st.lists(words, max_size=2).map(tuple),
    prefer=st.lists(words, max_size=2).map(tuple),
    tolerate=st.lists(words, max_size=2).map(tuple),
    near=st.lists(words, max_size=2).map(tuple),
    apart=st.lists(words, max_size=2).map(tuple),
    spread=st.lists(words, max_size=2).map(tuple),
    priority=st.integers(-1000, 1000),
)
ves = st.builds(
    VE,
    uid=words.map(Uid),
    name=words,
    project=words,
    labels=st.dictionaries(words, words, max_size=4),
    generation=counts,
    spec=specs,
    created_at=times,
    delete_requested_at=st.none() | times,
    restart_seq=counts,
    stop_timeout_s=st.floats(min_value=0, max_value=1e6),
    image_digest=words.map(Digest),
    ip=words,
    mac=words,
    op_id=words,
    request_id=words,
)
placements = st.builds(
    Placement,
    host=words.map(HostName),
    generation=st.integers(min_value=1, max_value=2**53),
    decided_at=times,
    message=st.text(max_size=20),
    op_id=words,
)
events = st.builds(
    Event,
    at=times,
    type=st.sampled_from(EventType),
    reason=words,
    message=st.text(max_size=20),
    host=words,
)
statuses = st.builds(
    VEStatus,
    state=st.sampled_from(VEState),
    reason=words,
    message=st.text(max_size=20),
    host=words,
    addresses=st.lists(words, max_size=2).map(tuple),
    started_at=st.none() | times,
    restarts=counts,
    observed_generation=counts,
    placement_generation=counts,
    observed_restart_seq=counts,
    init_pid=st.integers(min_value=0, max_value=2**22),
    events=st.lists(events, max_size=3).map(tuple),
)
resources = st.builds(
    Resources,
    cpu_millis=st.integers(min_value=0, max_value=10_000_000),
    memory_bytes=counts,
    disk_bytes=counts,
    pids=counts,
)
facts = st.builds(
    HostFacts,
    boot_id=words,
    version=words,
    labels=st.dictionaries(words, words, max_size=3),
    capacity=resources,
    address=words,
    peer_port=st.integers(min_value=1, max_value=65535),
    metrics_address=words,
    images=st.lists(
        st.builds(
            HeldImage,
            digest=words.map(Digest),
            blob_digest=words,
            size_bytes=counts,
            blob_bytes=counts,
        ),
        max_size=2,
    ).map(tuple),
)


@given(ves)
@example(make_ve(created_at=16.128849))
def test_a_ve_comes_back_as_it_went(ve: VE) -> None:
    data = values.encode_ve(ve)
    assert values.decode_ve(data) == ve
    assert values.encode_ve(values.decode_ve(data)) == data
    assert values.op_id(keys.ve_spec(ve.uid), data) == ve.op_id


@given(placements)
def test_a_placement_comes_back_as_it_went(placement: Placement) -> None:
    data = values.encode_placement(placement)
    assert values.decode_placement(data) == placement
    assert values.op_id(keys.ve_placement(Uid("u")), data) == placement.op_id


@given(statuses)
def test_a_status_comes_back_as_it_went(status: VEStatus) -> None:
    assert values.decode_status(values.encode_status(status)) == status


@given(facts)
def test_the_facts_of_a_host_come_back_as_they_went(value: HostFacts) -> None:
    assert values.decode_host_status(values.encode_host_status(value)) == value


def test_small_values_come_back_as_they_went() -> None:
    image = Image(
        digest=DIGEST, blob_digest="b", size_bytes=5, blob_bytes=3, created_at=1.5, op_id="o"
    )
    project = Project(name="p", created_at=1.25, op_id="o")
    cluster = Cluster(name="rack", incarnation=3)
    leader = Leader(name="c1", address="h:1", run_id="r")
    assert values.decode_image(values.encode_image(image)) == image
    assert values.decode_project(values.encode_project(project)) == project
    assert values.decode_cluster(values.encode_cluster(cluster)) == cluster
    assert values.decode_leader(values.encode_leader(leader)) == leader
    assert values.decode_ref(values.encode_ref("t", "o")) == Ref("t", "o")
    assert values.decode_beat(values.encode_beat(7)) == 7


DECODERS = {
    "ve": values.decode_ve,
    "placement": values.decode_placement,
    "status": values.decode_status,
    "host_status": values.decode_host_status,
    "host_spec": values.decode_host_spec,
    "image": values.decode_image,
    "ref": values.decode_ref,
    "project": values.decode_project,
    "cluster": values.decode_cluster,
    "leader": values.decode_leader,
    "beat": values.decode_beat,
}


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=200))
def test_garbage_is_read_or_unreadable_and_nothing_else(name: str, data: bytes) -> None:
    try:
        DECODERS[name](data)
    except Unreadable as error:
        assert error.message


@pytest.mark.parametrize("name", DECODERS)
def test_no_value_of_ours_is_empty(name: str) -> None:
    with pytest.raises(Unreadable):
        DECODERS[name](b"")


def test_a_newer_schema_is_unreadable_and_says_what_to_do() -> None:
    message = store_pb2.StoredVE.FromString(values.encode_ve(make_ve()))
    message.schema = values.SCHEMA + 1
    with pytest.raises(Unreadable) as refused:
        values.decode_ve(message.SerializeToString())
    assert "newer" in refused.value.message
    assert "update" in refused.value.hint


def test_a_word_that_this_version_does_not_know_is_unreadable() -> None:
    message = store_pb2.StoredVE.FromString(values.encode_ve(make_ve()))
    message.spec.on_host_loss = "replica-of-the-future"
    with pytest.raises(Unreadable):
        values.decode_ve(message.SerializeToString())


def test_values_of_other_keys_are_not_taken_for_ours() -> None:
    with pytest.raises(Unreadable):
        values.decode_placement(values.encode_project(Project(name="p", created_at=1)))
    with pytest.raises(Unreadable):
        values.decode_host_status(values.encode_beat(1))
    assert values.decode_placement(values.encode_placement(make_placement())).host == "h1"
    assert values.decode_host_status(values.encode_host_status(make_facts())) == make_facts()


@pytest.mark.parametrize("out_of_bounds", [-1, 2**60])
def test_a_capacity_that_no_host_has_is_unreadable(out_of_bounds: int) -> None:
    for field in ("cpu_millis", "memory_bytes", "disk_bytes", "pids"):
        made_up = make_facts(capacity=Resources(**{field: out_of_bounds}))
        with pytest.raises(Unreadable):
            values.decode_host_status(values.encode_host_status(made_up))


def test_a_capacity_without_end_is_unreadable() -> None:
    message = store_pb2.StoredHostStatus.FromString(values.encode_host_status(make_facts()))
    for cores in (float("inf"), float("nan")):
        message.facts.capacity.cpu = cores
        with pytest.raises(Unreadable):
            values.decode_host_status(message.SerializeToString())


KEYS = {
    keys.ve_spec(Uid("u")): (Kind.VE_SPEC, ("u",)),
    keys.ve_name("p", "n"): (Kind.VE_NAME, ("p", "n")),
    keys.ve_placement(Uid("u")): (Kind.VE_PLACEMENT, ("u",)),
    keys.ve_status(Uid("u")): (Kind.VE_STATUS, ("u",)),
    keys.address("default", "10.0.0.1"): (Kind.ADDRESS, ("default", "10.0.0.1")),
    keys.host_status(HostName("h")): (Kind.HOST_STATUS, ("h",)),
    keys.image(DIGEST): (Kind.IMAGE, (DIGEST,)),
    keys.image_tag("base"): (Kind.IMAGE_TAG, ("base",)),
    keys.project("p"): (Kind.PROJECT, ("p",)),
    keys.CLUSTER: (Kind.CLUSTER, ()),
    keys.LEADER: (Kind.LEADER, ()),
    keys.BEAT: (Kind.BEAT, ()),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_known_again(key: str) -> None:
    assert key.startswith(keys.ROOT)
    assert keys.parse(key) == KEYS[key]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "ve",
        "ve/spec",
        "ve/spec/",
        "ve/name/p",
        "ve/name/p/",
        "ve/replica/u",
        "host/other/h",
        "network/n",
        "addr/n",
        "project/",
        "leader/",
        "leaders",
        "cluster/other",
        "image/x/y",
    ],
)
def test_a_key_of_another_version_is_left_alone(path: str) -> None:
    assert keys.parse(keys.ROOT + path) is None
    assert keys.parse("/other" + keys.ve_spec(Uid("u"))) is None
