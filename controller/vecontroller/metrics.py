"""What Prometheus gets of the cluster: what is wanted, what is seen, who has room, why something waits.

Only the leader tells of the cluster: several controllers' copies would be added up, and a follower's is older. It tells
of what no host can: VEs that have none, and hosts that are silent. Usage is the agents' part, under the same labels `ve`,
`project` and `host`.
"""

from collections import Counter as Count
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)

from veapi.model import HostName, HostState, Placement, Resources, Run, Uid, VEState, VEStatus
from veapi.series import Family, Kind, Labels, Page, labels
from vecontroller.failover.judge import Waits
from vecontroller.groups import metrics as groupmetrics
from vecontroller.groups.member import Key
from vecontroller.groups.state import Shown
from vecontroller.lifecycle import SCHEDULING, displayed
from vecontroller.placement import Refusal, Rules, committed
from vecontroller.placement.rules import PLAIN
from vecontroller.view import View

_VE = ("ve", "project", "host")

LEADER = Family("verack_leader", Kind.GAUGE, "1 while this controller leads.", ("controller",))
EPOCH = Family(
    "verack_leader_epoch",
    Kind.GAUGE,
    "Revision at which this controller took the lead; 0: it does not lead.",
    ("controller",),
)
REVISION = Family(
    "verack_mirror_revision", Kind.GAUGE, "Revision of the store up to which the view is."
)
QUARANTINED = Family(
    "verack_quarantined_values", Kind.GAUGE, "Values of the store that can't be read."
)
HOST_INFO = Family(
    "verack_host_info", Kind.INFO, "A host; always 1.", ("host", "rack", "version", "address")
)
HOST_STATE = Family(
    "verack_host_state",
    Kind.STATE_SET,
    "State of a host: 1 for the one that holds.",
    ("host", "state"),
)
HOST_CAPACITY = Family(
    "verack_host_capacity",
    Kind.GAUGE,
    "What the host has: cpu in cores, memory_bytes, disk_bytes, pids.",
    ("host", "resource"),
)
HOST_ROOM = Family(
    "verack_host_room",
    Kind.GAUGE,
    "What VEs may have of the host: its capacity without its reserve, times the overcommit of its class.",
    ("host", "resource"),
)
HOST_COMMITTED = Family(
    "verack_host_committed",
    Kind.GAUGE,
    "What is given away of it, to VEs that are being deleted too.",
    ("host", "resource"),
)
LAST_HEARTBEAT = Family(
    "verack_agent_last_heartbeat_timestamp_seconds",
    Kind.GAUGE,
    "When this leader last heard of the host, in Unix seconds.",
    ("host",),
)
VE_INFO = Family(
    "verack_ve_info",
    Kind.INFO,
    "A VE; always 1. `host` is empty while it has none.",
    (*_VE, "uid", "image", "ip"),
)
VE_DESIRED = Family(
    "verack_ve_desired_state",
    Kind.STATE_SET,
    "What was asked of the VE: 1 for the one that holds.",
    (*_VE, "state"),
)
VE_OBSERVED = Family(
    "verack_ve_observed_state",
    Kind.STATE_SET,
    "State of a VE as vectl shows it: 1 for the one that holds.",
    (*_VE, "state"),
)
VE_GENERATION = Family("verack_ve_generation", Kind.GAUGE, "Counts changes of the spec.", _VE)
VE_OBSERVED_GENERATION = Family(
    "verack_ve_observed_generation", Kind.GAUGE, "The generation that its host carried out.", _VE
)
VE_PLACEMENT_GENERATION = Family(
    "verack_ve_placement_generation", Kind.GAUGE, "Counts starts on a new host; 0: none yet.", _VE
)
PENDING = Family(
    "verack_scheduler_pending_ves", Kind.GAUGE, "VEs that have no host, by reason.", ("reason",)
)
ATTEMPTS = Family(
    "verack_scheduler_attempts_total",
    Kind.COUNTER,
    "Decisions of the scheduler, one for each VE of a pass: placed, refused, or lost (to a race or a failure).",
    ("result",),
)
ATTEMPT_DURATION = Family(
    "verack_scheduler_attempt_duration_seconds",
    Kind.HISTOGRAM,
    "How long a pass took: plan and commits, in seconds.",
)
MOVES = Family(
    "verack_failover_moves_total", Kind.COUNTER, "VEs that were moved as their host was lost."
)
MOVE_DELAY = Family(
    "verack_failover_move_delay_seconds",
    Kind.HISTOGRAM,
    "Seconds of silence of its host, as they count, after which a VE was moved.",
)
MOVES_WAITING = Family(
    "verack_failover_moves_waiting",
    Kind.GAUGE,
    "VEs on hosts that do not answer and that are not moved (yet), by reason.",
    ("reason",),
)
OWN_FAMILIES = (ATTEMPTS, ATTEMPT_DURATION, MOVES, MOVE_DELAY)
CLUSTER_FAMILIES = (
    HOST_INFO,
    HOST_STATE,
    HOST_CAPACITY,
    HOST_ROOM,
    HOST_COMMITTED,
    LAST_HEARTBEAT,
    VE_INFO,
    VE_DESIRED,
    VE_OBSERVED,
    VE_GENERATION,
    VE_OBSERVED_GENERATION,
    VE_PLACEMENT_GENERATION,
    PENDING,
    MOVES_WAITING,
    *groupmetrics.FAMILIES,
)
FAMILIES: tuple[Family, ...] = (
    LEADER,
    EPOCH,
    REVISION,
    QUARANTINED,
    *CLUSTER_FAMILIES,
    *OWN_FAMILIES,
)
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_MOVE_BUCKETS_S = (1.0, 10.0, 12.0, 12.5, 13.0, 14.0, 16.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_HOST_STATES = tuple(state.value for state in HostState)
_VE_STATES = tuple(state.value for state in VEState)
_RUNS = tuple(run.value for run in Run)


@dataclass(frozen=True, slots=True)
class Sources:
    """What the page is made of, asked at each scrape. `epoch`: 0 while this controller does not lead."""

    view: Callable[[], View]
    epoch: Callable[[], int]
    host_state: Callable[[HostName], HostState]
    last_heard_at: Callable[[HostName], float | None]
    refusals: Callable[[], Mapping[Uid, Refusal]]
    rules: Rules = PLAIN
    waits: Callable[[], Mapping[Uid, Waits]] = dict
    groups: Callable[[], Mapping[Key, tuple[int, Shown]]] = dict


class SchedulerMetrics:
    """What the scheduler counts of its passes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = ATTEMPTS.name.removesuffix("_total")
        self._attempts = Counter(name, ATTEMPTS.help, ATTEMPTS.labels, registry=registry)
        self._duration = Histogram(
            ATTEMPT_DURATION.name, ATTEMPT_DURATION.help, registry=registry, buckets=_BUCKETS_S
        )

    def passed(self, seconds: float, *, placed: int = 0, refused: int = 0, lost: int = 0) -> None:
        """A pass with VEs to place has ended."""
        self._duration.observe(seconds)
        for result, ves in (("placed", placed), ("refused", refused), ("lost", lost)):
            self._attempts.labels(result).inc(ves)


class FailoverMetrics:
    """What failover counts of its moves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._moves = Counter(MOVES.name.removesuffix("_total"), MOVES.help, registry=registry)
        self._delay = Histogram(
            MOVE_DELAY.name, MOVE_DELAY.help, registry=registry, buckets=_MOVE_BUCKETS_S
        )

    def moved(self, seconds: float) -> None:
        """A VE was moved so long after its host was heard last."""
        self._moves.inc()
        self._delay.observe(seconds)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A VE with its rendered labels and what a person would see of it."""

    labels: Labels
    uid: Uid
    placement: Placement | None
    status: VEStatus


class ControllerMetrics:
    """Renders the page. `registry` holds what the program itself counts (process, gRPC, scheduler)."""

    def __init__(self, *, name: str, sources: Sources, registry: CollectorRegistry) -> None:
        self._controller = labels(controller=name)
        self._sources = sources
        self._registry = registry
        self._labels: dict[Uid, tuple[tuple[str, str, str], Labels]] = {}

    def render(self) -> bytes:
        """The page of now, in Prometheus' text format."""
        page = Page()
        epoch, view = self._sources.epoch(), self._sources.view()
        page.family(LEADER, [(self._controller, 1 if epoch else 0)])
        page.family(EPOCH, [(self._controller, epoch)])
        page.family(REVISION, [("", view.revision)])
        page.family(QUARANTINED, [("", len(view.quarantined))])
        if epoch:
            self._hosts(page, view)
            self._ves(page, view)
            groupmetrics.render(page, self._sources.groups())
        return page.encode() + generate_latest(self._registry)

    def _hosts(self, page: Page, view: View) -> None:
        names = sorted(view.hosts)
        of = {name: labels(host=name) for name in names}
        page.family(HOST_INFO, [(_host_info(view, name), 1) for name in names])
        states = ((of[name], self._sources.host_state(name).value) for name in names)
        page.state_set(HOST_STATE, _HOST_STATES, states)
        capacity = {name: view.hosts[name].value.capacity for name in names}
        page.family(HOST_CAPACITY, _resources(of, capacity))
        room = {name: self._sources.rules.room(view.hosts[name].value) for name in names}
        page.family(HOST_ROOM, _resources(of, room))
        page.family(HOST_COMMITTED, _resources(of, {n: committed(view, n) for n in names}))
        heard = {name: self._sources.last_heard_at(name) for name in names}
        page.family(LAST_HEARTBEAT, [(of[n], at) for n, at in heard.items() if at is not None])

    def _ves(self, page: Page, view: View) -> None:
        refusals = self._sources.refusals()
        shown = self._show(view, refusals)
        ves = view.ves
        page.family(VE_INFO, [(_ve_info(view, each), 1) for each in shown])
        runs = ((each.labels, ves[each.uid].value.spec.run.value) for each in shown)
        page.state_set(VE_DESIRED, _RUNS, runs)
        page.state_set(VE_OBSERVED, _VE_STATES, [(s.labels, s.status.state.value) for s in shown])
        page.family(VE_GENERATION, [(s.labels, ves[s.uid].value.generation) for s in shown])
        observed = [(s.labels, s.status.observed_generation) for s in shown]
        page.family(VE_OBSERVED_GENERATION, observed)
        placed = [(s.labels, s.placement.generation if s.placement else 0) for s in shown]
        page.family(VE_PLACEMENT_GENERATION, placed)
        page.family(PENDING, _pending(shown, refusals))
        reasons = Count(each.why.value for each in self._sources.waits().values())
        page.family(
            MOVES_WAITING, [(labels(reason=why), ves) for why, ves in sorted(reasons.items())]
        )

    def _show(self, view: View, refusals: Mapping[Uid, Refusal]) -> list[_Shown]:
        states = {name: self._sources.host_state(name) for name in view.hosts}
        shown = []
        for uid, held in view.ves.items():
            placed, status = view.placements.get(uid), view.statuses.get(uid)
            placement = placed.value if placed else None
            as_shown = displayed(
                held.value,
                placement,
                status.value if status else None,
                refusal=refusals.get(uid),
                host_state=states.get(placement.host, HostState.UNKNOWN)
                if placement
                else HostState.UNKNOWN,
            )
            host = placement.host if placement else ""
            rendered = self._labels_of(uid, held.value.name, held.value.project, host)
            shown.append(_Shown(rendered, uid, placement, as_shown))
        self._labels = {each.uid: self._labels[each.uid] for each in shown}
        return shown

    def _labels_of(self, uid: Uid, ve: str, project: str, host: str) -> Labels:
        """Rendered once for each name and place."""
        known = self._labels.get(uid)
        if known is None or known[0] != (ve, project, host):
            rendered = labels(ve=ve, project=project, host=host)
            known = self._labels[uid] = ((ve, project, host), rendered)
        return known[1]


def _host_info(view: View, name: HostName) -> Labels:
    facts = view.hosts[name].value
    rack = facts.labels.get("rack", "")
    return labels(host=name, rack=rack, version=facts.version, address=facts.address)


def _ve_info(view: View, shown: _Shown) -> Labels:
    ve = view.ves[shown.uid].value
    return f"{shown.labels},{labels(uid=ve.uid, image=ve.spec.image, ip=ve.ip)}"


def _resources(
    of: Mapping[HostName, Labels], amounts: Mapping[HostName, Resources]
) -> Iterator[tuple[Labels, float]]:
    for name, amount in amounts.items():
        yield f'{of[name]},resource="cpu"', amount.cpu_millis / 1000
        yield f'{of[name]},resource="memory_bytes"', amount.memory_bytes
        yield f'{of[name]},resource="disk_bytes"', amount.disk_bytes
        yield f'{of[name]},resource="pids"', amount.pids


def _pending(
    shown: Sequence[_Shown], refusals: Mapping[Uid, Refusal]
) -> Iterator[tuple[Labels, float]]:
    reasons = Count(
        refusals[each.uid].reason if each.uid in refusals else SCHEDULING
        for each in shown
        if each.placement is None and each.status.state is VEState.PENDING
    )
    for reason, ves in sorted(reasons.items()):
        yield labels(reason=reason), ves
