"""How much of a host VEs may have, and whether they are spread or packed, as controller.toml says."""

import msgspec
import pytest

from kit.apirig import NO_CONTEXT, api_rig
from kit.world import GIB, held, make_facts, make_placement, make_ve, make_view
from veapi.errors import InvalidInput, NoHostFits
from veapi.model import HostName, HostState, Resources
from veapi.v1 import api_pb2, types_pb2
from vecontroller.placement import HostClass, Rules, Strategy, free, host_rows, plan, request
from vecontroller.placementconfig import PlacementSection

BIG = HostClass(
    match="class=big",
    overcommit={"cpu": 4.0, "memory": 1.5},
    reserve=Resources(cpu_millis=4000, memory_bytes=4 * GIB, disk_bytes=900 * GIB),
)
RULES = Rules(classes=(BIG, HostClass(reserve=Resources(pids=768))))


def rows(view, rules=RULES):
    return host_rows(
        view,
        state=lambda _host: HostState.READY,
        connected=lambda _host: True,
        in_flight={},
        rules=rules,
    )


def test_a_host_has_the_room_of_its_first_class():
    view = make_view(hosts={"h1": make_facts(labels={"class": "big"}), "h2": make_facts()})
    big, other = rows(view)
    assert big.capacity == Resources(
        cpu_millis=240_000, memory_bytes=90 * GIB, disk_bytes=0, pids=32_768
    )
    assert other.capacity == Resources(
        cpu_millis=64_000, memory_bytes=64 * GIB, disk_bytes=640 * GIB, pids=32_000
    )
    assert [row.capacity for row in rows(view, Rules())] == [make_facts().capacity] * 2


def test_what_grows_is_measured_by_the_same_room():
    view = make_view(
        hosts={"h1": make_facts()}, ves=[make_ve("u1")], placements={"u1": make_placement("h1")}
    )
    left = free(view, HostName("h1"), [Resources(pids=1000)], RULES)
    assert left is not None
    assert left.pids == 32_000 - 1000 - 100


def test_projects_may_be_packed_while_others_are_spread():
    rules = Rules(projects={"batch": Strategy.PACK})
    view = make_view(hosts={"h1": make_facts(), "h2": make_facts()})
    wanted = [
        request(view, held(make_ve(f"{project}-{index}", project=project)), rules)
        for project in ("batch", "web")
        for index in range(4)
    ]
    # Spread, they keep clear of the host that the others filled.
    hosts = {each.uid: each.host for each in plan(rows(view, rules), wanted).assignments}
    assert {host for uid, host in hosts.items() if uid.startswith("batch")} == {"h1"}
    assert {host for uid, host in hosts.items() if uid.startswith("web")} == {"h2"}


async def test_a_ve_grows_into_what_is_overcommitted_and_no_further():
    async with api_rig() as rig:
        rig.deps = with_rules(rig.deps, Rules(classes=(HostClass(overcommit={"memory": 2.0}),)))
        service = type(rig.ve)(rig.deps, rig.in_flight, rig.departed)
        await rig.running("web")

        async def grow(gib: int) -> types_pb2.VE:
            spec = types_pb2.VESpec(memory_bytes=gib * GIB)
            ref = api_pb2.VERef(name="web")
            asked = api_pb2.SetVERequest(ve=ref, spec=spec, fields=["memory_bytes"])
            return await service.Set(asked, NO_CONTEXT)

        assert (await grow(32)).spec.memory_bytes == 32 * GIB
        with pytest.raises(NoHostFits, match="memory"):
            await grow(33)
        host = await type(rig.host)(rig.deps).Get(api_pb2.HostRef(name="h1"), NO_CONTEXT)
        assert (host.room.memory_bytes, host.capacity.memory_bytes) == (32 * GIB, 16 * GIB)


def with_rules(deps, rules):
    fields = {name: getattr(deps, name) for name in deps.__dataclass_fields__}
    return type(deps)(**{**fields, "rules": rules})


TOML = """
strategy = "pack"
projects = {web = "spread"}
[classes.big]
hosts = "class=big"
overcommit = {cpu = 4, memory = 1.5}
reserve = {cpu = "4", memory = "4G", disk = "900G"}
[classes.rest]
hosts = ""
"""


def section(text: str) -> PlacementSection:
    return msgspec.toml.decode(text, type=PlacementSection)


def test_the_configuration_says_all_of_it():
    rules = section(TOML).rules
    assert rules.strategy is Strategy.PACK
    assert rules.strategy_of("web") is Strategy.SPREAD
    facts = make_facts(labels={"class": "big"})
    assert rules.room(facts) == BIG.room(facts.capacity)
    assert rules.room(make_facts()) == make_facts().capacity


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('[classes.a]\nhosts = "a b"', "placement.classes.a.hosts"),
        ('[classes.a]\nhosts = ""\novercommit = {cpu = 0}', "placement.classes.a.overcommit.cpu"),
        ('[classes.a]\nhosts = ""\novercommit = {cpu = nan}', "overcommit.cpu"),
        ('[classes.a]\nhosts = ""\nreserve = {memory = "x"}', "placement.classes.a.reserve.memory"),
        ('[classes.a]\nhosts = ""\nreserve = {pids = -1}', "reserve.pids"),
        ('projects = {"A b" = "pack"}', "placement.projects"),
    ],
)
def test_what_can_not_be_is_refused_with_its_field(text: str, field: str):
    with pytest.raises(InvalidInput, match=field) as refused:
        _ = section(text).rules
    assert refused.value.hint


@pytest.mark.parametrize("text", ['strategy = "most"', "classes = 1", "[classes.a]\nratio = 1"])
def test_unknown_words_are_refused(text: str):
    with pytest.raises(msgspec.ValidationError):
        section(text)
