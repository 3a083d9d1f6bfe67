"""Hosts and requests for placement, made by hand and by hypothesis."""

from functools import partial

from hypothesis import strategies as st

from veapi.model import HostName, HostState, Resources, Uid
from vecontroller.placement import HostRow, Request

GIB = 1 << 30


def amount(cpu: int = 1000, memory: int = GIB, disk: int = GIB, pids: int = 100) -> Resources:
    return Resources(cpu_millis=cpu, memory_bytes=memory, disk_bytes=disk, pids=pids)


def host(name: str, rack: str = "r1", **options) -> HostRow:
    """64 cores, 64G of memory and 640G of disk, empty."""
    fields = {
        "capacity": amount(64_000, 64 * GIB, 640 * GIB, 32_768),
        "committed": Resources(),
        "placed": 0,
    }
    return HostRow(name=HostName(name), rack=rack, **{**fields, **options})


def request(uid: str, resources: Resources | None = None, **options) -> Request:
    return Request(uid=Uid(uid), resources=resources or amount(), **options)


amounts = st.builds(
    amount,
    cpu=st.integers(1, 8_000),
    memory=st.integers(1, 8 * GIB),
    disk=st.integers(1, 8 * GIB),
    pids=st.integers(1, 500),
)
hosts_without_name = st.lists(
    st.builds(
        partial,
        st.just(host),
        rack=st.sampled_from(["r1", "r2", "r3"]),
        capacity=amounts,
        committed=st.one_of(st.just(Resources()), amounts),
        placed=st.integers(0, 20),
        state=st.sampled_from([HostState.READY, HostState.READY, *HostState]),
        connected=st.sampled_from([True, True, True, False]),
        unfenced=st.sampled_from([False, False, True]),
    ),
    max_size=6,
)
host_lists = hosts_without_name.map(
    lambda makers: [make(name=f"h{index}") for index, make in enumerate(makers)]
)
request_makers = st.builds(
    partial,
    st.just(request),
    resources=st.sampled_from([amount(), amount(cpu=250), amount(memory=GIB // 4)]) | amounts,
    host=st.sampled_from(["", "", "", "h1", "h9"]),
    since=st.integers(0, 5),
    fenced=st.booleans(),
)
one_request = request_makers.map(lambda make: make(uid="u"))
request_lists = st.lists(request_makers, max_size=15).map(
    lambda makers: [make(uid=f"u{index:03}") for index, make in enumerate(makers)]
)
