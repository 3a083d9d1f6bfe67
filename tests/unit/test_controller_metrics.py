"""A controller's page, parsed back."""

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from veapi.model import (
    VE,
    HostFacts,
    HostName,
    HostState,
    Placement,
    Resources,
    Run,
    Spec,
    Uid,
    VEState,
    VEStatus,
)
from vecontroller.failover.judge import Waits, Why
from vecontroller.groups.state import GroupState, Reason, Shown
from vecontroller.metrics import (
    CLUSTER_FAMILIES,
    FAMILIES,
    ControllerMetrics,
    FailoverMetrics,
    SchedulerMetrics,
    Sources,
)
from vecontroller.placement import Refusal
from vecontroller.view import Held, View

H1, H2 = HostName("h1"), HostName("h2")
A, B, C = Uid("a"), Uid("b"), Uid("c")
HEARD_AT = 1700.25
WEB = Shown(state=GroupState.STOPPED, why=Reason(), ves=3, updated=1, available=2)


def ve(uid: Uid, run: Run = Run.RUNNING) -> VE:
    spec = Spec(image="base", cpu_millis=1500, memory_bytes=100, disk_bytes=200, pids=7, run=run)
    return VE(
        uid=uid, name=f"ve-{uid}", project="p", labels={}, generation=3, spec=spec, created_at=1.0
    )


def view() -> View:
    made = View(revision=42)
    capacity = Resources(cpu_millis=4000, memory_bytes=1000, disk_bytes=2000, pids=100)
    for name in (H1, H2):
        facts = HostFacts(
            boot_id="x", version="1", labels={"rack": "r1"}, capacity=capacity, address="10.0.0.1", peer_port=1
        )  # fmt: skip
        made.hosts[name] = Held(facts, 1, 1)
    for uid in (A, B, C):
        made.ves[uid] = Held(ve(uid), 1, 1)
    for uid, host in ((A, H1), (B, H2)):
        made.placements[uid] = Held(Placement(host=host, generation=1, decided_at=1.0), 1, 1)
        made.placed_on[host].add(uid)
    running = VEStatus(state=VEState.RUNNING, placement_generation=1, observed_generation=2)
    made.statuses[A] = made.statuses[B] = Held(running, 1, 1)
    made.quarantined["/verack/x"] = 1
    return made


def refusals() -> dict[Uid, Refusal]:
    return {C: Refusal(uid=C, reason="NoHostFits", message="", hint="")}


def metrics(*, epoch: int = 9, registry: CollectorRegistry | None = None) -> ControllerMetrics:
    held = view()
    sources = Sources(
        view=lambda: held,
        epoch=lambda: epoch,
        host_state=lambda host: HostState.READY if host == H1 else HostState.SILENT,
        last_heard_at=lambda host: HEARD_AT if host == H1 else None,
        refusals=refusals,
        waits=lambda: {C: Waits(Why.NOT_ARMED, "")},
        groups=lambda: {("p", "web"): (3, WEB)},
    )
    return ControllerMetrics(name="c1", sources=sources, registry=registry or CollectorRegistry())


def samples(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def of(uid: Uid, name: str, host: str, **more: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return key(name, ve=f"ve-{uid}", project="p", host=host, **more)


def test_hosts_have_state_capacity_and_what_is_given_away() -> None:
    found = samples(metrics().render())
    assert found[key("verack_host_state", host="h1", state="Ready")] == 1
    assert found[key("verack_host_state", host="h2", state="Silent")] == 1
    assert found[key("verack_host_state", host="h2", state="Ready")] == 0
    assert found[key("verack_host_capacity", host="h1", resource="cpu")] == 4
    assert found[key("verack_host_committed", host="h1", resource="cpu")] == 1.5
    assert found[key("verack_host_committed", host="h1", resource="memory_bytes")] == 100
    heard = "verack_agent_last_heartbeat_timestamp_seconds"
    assert found[key(heard, host="h1")] == HEARD_AT
    assert key(heard, host="h2") not in found


def test_a_ve_on_a_silent_host_and_one_without_a_host_are_told_of() -> None:
    found = samples(metrics().render())
    name = "verack_ve_observed_state"
    assert found[of(A, name, "h1", state="Running")] == 1
    assert found[of(B, name, "h2", state="Unknown")] == 1
    assert found[of(C, name, "", state="Pending")] == 1
    assert found[key("verack_scheduler_pending_ves", reason="NoHostFits")] == 1
    assert found[of(A, "verack_ve_generation", "h1")] == 3
    assert found[of(A, "verack_ve_observed_generation", "h1")] == 2
    assert found[of(C, "verack_ve_placement_generation", "")] == 0
    assert found[of(A, "verack_ve_desired_state", "h1", state="running")] == 1


def test_a_controller_that_does_not_lead_says_only_that() -> None:
    names = {name for name, _ in samples(metrics(epoch=0).render())}
    assert not names & {family.name for family in CLUSTER_FAMILIES}
    assert samples(metrics(epoch=0).render())[key("verack_leader", controller="c1")] == 0


def test_every_family_of_the_list_is_on_the_page_with_its_labels() -> None:
    registry = CollectorRegistry()
    SchedulerMetrics(registry).passed(0.01, placed=2, refused=1)
    FailoverMetrics(registry).moved(12.3)
    page = metrics(registry=registry).render()
    found = samples(page)
    assert found[key("verack_scheduler_attempts_total", result="placed")] == 2
    assert found[key("verack_failover_moves_total")] == 1
    web = {"group": "web", "project": "p"}
    assert found[key("verack_group_desired_ves", **web)] == 3
    assert found[key("verack_group_available_ves", **web)] == 2
    assert found[key("verack_group_state", **web, state="Stopped")] == 1
    assert found[key("verack_failover_moves_waiting", reason="NotArmed")] == 1
    labelled = {
        name.removesuffix("_count"): {label for label, _ in labels} for name, labels in found
    }
    assert {f.name: set(f.labels) for f in FAMILIES}.items() <= labelled.items()
