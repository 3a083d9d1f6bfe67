"""What must never be, looked at after every change of the store and of any host. Each violation has a name.

The names in brackets are those of the list of invariants that the project keeps (docs/reliability.md).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sim.fencing import Fencing
from sim.loop import SimLoop
from sim.process import SimClock
from sim.truth import Truth
from veagent.ports import StartPlan
from veapi.model import Action, Digest, HostName, HostSet, OnHostLoss, Order, Timing, Uid
from vecontroller.store import keys
from vecontroller.store.keys import BEAT, LEADER, Kind
from vecontroller.store.port import StoreEvent

if TYPE_CHECKING:
    from sim.controller import Controller
    from sim.etcd import SimEtcd
    from sim.host import Host


JUST_NOW_S = 3.0
"""What an agent did longer ago is on its disk."""


UP = (Action.RUN, Action.FREEZE)
STOP_S = 5.0
"""No stop takes longer."""
QUIET_LEADER_S = 2.5
"""A standby waits 3 s, by its own clock, for a beat."""


class Violation(Exception):
    """`invariant` is its name."""

    def __init__(self, invariant: str, detail: str, at: float) -> None:
        super().__init__(f"{invariant} at {at:.3f} s: {detail}")
        self.invariant = invariant
        self.detail = detail
        self.at = at


class Checks:
    """The first violation ends the story."""

    def __init__(
        self,
        loop: SimLoop,
        etcd: "SimEtcd",
        tell: Callable[[str], None],
        *,
        timing: Timing,
        rate_error: float,
    ) -> None:
        self.truth = Truth()
        self.fencing = Fencing(loop, self, timing, rate_error)
        self.violation: Violation | None = None
        self.hosts: dict[str, Host] = {}
        self.controllers: dict[str, Controller] = {}
        self.asked_to_delete: set[str] = set()
        """Names and uids for which somebody ever asked a delete or purge."""
        self.started: dict[tuple[str, Uid], float] = {}
        """When each VE was last started on each host."""
        self.lifted: dict[tuple[str, Uid], float] = {}
        """When a wish that a VE be down was last taken back."""
        self.stopped: defaultdict[tuple[str, Uid, int, int], int] = defaultdict(int)
        self.dropped: defaultdict[tuple[str, Uid], int] = defaultdict(int)
        self.excuses: defaultdict[tuple[str, Uid], int] = defaultdict(int)
        self.powered_off: set[Uid] = set()
        self.acked_restarts: defaultdict[Uid, int] = defaultdict(int)
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.bases: dict[tuple[str, Uid], int] = {}
        """First id of each VE on each host, as of its last start."""
        self.asked_to_purge: set[str] = set()
        self.asked: Counter[str] = Counter()
        """How often somebody asked for what each counter of VEs counts."""
        self.counted: Counter[str] = Counter()
        self.leader = ""
        self.last_beat = float("-inf")
        self._loop = loop
        self._etcd = etcd
        self._tell = tell
        etcd.committed = self.committed

    def now(self) -> float:
        """True seconds since the story began."""
        return self._loop.time()

    def note(self, what: str) -> None:
        """A line of the story."""
        self._tell(what)

    def violate(self, invariant: str, detail: str) -> None:
        if self.violation is None:
            self.violation = Violation(invariant, detail, self._loop.time())
            self.note(f"VIOLATION {self.violation}")
            self._loop.stop()

    def demand(self, invariant: str, holds: object, detail: str) -> None:
        self.counts[invariant] += 1
        if not holds:
            self.violate(invariant, detail)

    # The store.

    def committed(self, who: str, epoch: int, events: Sequence[StoreEvent]) -> None:
        """After each transaction that wrote something."""
        truth, touched = self.truth, []
        leads = truth.epoch
        for event in events:
            found = truth.fold(event, self._loop.time())
            if found is not None:
                touched.append(found)
        if any(event.key != BEAT for event in events):
            shown = [f"{'put' if event.item else 'del'} {event.key[8:40]}" for event in events]
            self.note(f"{who} writes {events[0].revision}: {', '.join(shown)}")
        self._leads(who, epoch, leads, events)
        self._takes_over(who, leads, events)
        uids = {
            Uid(parts[kind is Kind.VE_LEFT])
            for kind, parts in touched
            if kind.value.startswith("ve/") and kind is not Kind.VE_NAME
        }
        uids |= {
            uid
            for kind, parts in touched
            if kind is Kind.VE_NAME and (uid := truth.names.get((parts[0], parts[1])))
        }
        for uid in sorted(uids):
            self._ve(uid)
        for kind, parts in touched:
            if kind is Kind.VE_NAME:
                self._name((parts[0], parts[1]))
            elif kind is Kind.ADDRESS:
                self._address(parts[1])
            elif kind is Kind.VE_STATUS:
                self._status(Uid(parts[0]))
        self._rooms(touched)

    def _leads(self, who: str, epoch: int, leads: int, events: Sequence[StoreEvent]) -> None:
        """[S6] Whoever writes leads, at that moment."""
        ours = all(event.key in (LEADER, BEAT, keys.CLUSTER) for event in events)
        self.demand(
            "only the leader writes",
            ours or who == "the story" or epoch == leads,
            f"{who} of epoch {epoch} wrote {events[0].key} under {leads}",
        )

    def _takes_over(self, who: str, epoch: int, events: Sequence[StoreEvent]) -> None:
        """[L8] Nobody takes the lead from a leader that beats."""
        now = self._loop.time()
        took = any(event.key == LEADER and event.item is not None for event in events)
        if took:
            silent_s = now - self.last_beat
            self.demand(
                "no leader is deposed that beats",
                not epoch or silent_s > QUIET_LEADER_S,
                f"by {who} after {silent_s:.2f} s",
            )
            self.leader = who
        if any(event.key == BEAT for event in events):
            self.last_beat = now
            self.demand(
                "one controller leads",
                who in (self.leader, "the story"),
                f"{who} beats, {self.leader} leads",
            )

    def _once(self, what: str, before: int, now: int) -> None:
        """An operation is applied once: nothing counts more than was asked."""
        if now > before:
            self.counted[what] += now - before
            self.demand(
                "an operation is applied once",
                self.counted[what] <= self.asked[what],
                f"{what}: {self.counted[what]} of {self.asked[what]}",
            )

    def _ve(self, uid: Uid) -> None:
        truth = self.truth
        life, ve = truth.lives[uid], truth.specs.get(uid)
        placement, kept = truth.placements.get(uid), truth.deleted.get(uid)
        self.demand(
            "a VE is there or deleted, not both",
            ve is None or kept is None or kept.purging,
            f"{uid}",
        )
        if ve is not None:
            self._grows(uid)
            self.demand(
                "each VE holds its name",
                truth.names.get((ve.project, ve.name)) == uid,
                f"{ve.name} of {uid}",
            )
            self.demand(
                "each VE holds its address", truth.addresses.get(ve.ip) == uid, f"{ve.ip} of {uid}"
            )
        if placement is not None:
            self.fencing.placed(uid, life.placement, placement)
            life.placement = placement
            life.hosts.add(placement.host)
            least = life.placement_generation + (life.unplaced and bool(life.placement_generation))
            self.demand("placements grow", placement.generation >= least, f"{uid}")
            life.unplaced = False
            life.placement_generation = placement.generation
        else:
            life.unplaced = True
        left = [each for each in truth.left.items() if each[0][1] == uid]
        self.fencing.purged |= {key for key, each in left if each.purging}
        if kept is not None:
            life.hosts.add(kept.placement.host)
            self._purging(uid)
            life.purge |= kept.purging
            self._settled(kept.placement.host, uid)
        if ve is None and kept is None and placement is None and not left and not life.vanished:
            self._vanished(uid)
        if ve is not None or kept is not None:
            life.vanished = False

    def _grows(self, uid: Uid) -> None:
        """[S2, S6] Counters of a VE only grow: a lower one is a lost update."""
        life, ve = self.truth.lives[uid], self.truth.specs[uid]
        for name, before, now in (
            ("generation", life.generation, ve.generation),
            ("restart_seq", life.restart_seq, ve.restart_seq),
            ("root.seq", life.root_seq, ve.root.seq),
            ("snapshot_seq", life.snapshot_seq, ve.snapshot_seq),
        ):
            self.demand(
                "no update is lost", now >= before, f"{name} of {uid}: {before}, then {now}"
            )
            if name != "generation":
                self._once(name, before, now)
        life.generation, life.restart_seq = ve.generation, ve.restart_seq
        life.root_seq, life.snapshot_seq = ve.root.seq, ve.snapshot_seq
        life.names.add(ve.name)
        if ve.spec.on_host_loss is not OnHostLoss.STAY:
            self.fencing.ever.add(uid)
        life.delete |= ve.delete_requested_at is not None
        life.purge |= ve.delete_requested_at is not None and ve.purge
        life.snapshots_leaving |= {wish.seq for wish in ve.snapshots if wish.deleting}
        life.snapshots |= {wish.tag for wish in ve.snapshots}

    def _purging(self, uid: Uid) -> None:
        """A deleted VE is removed when its time has come, or when somebody says so."""
        kept, life = self.truth.deleted[uid], self.truth.lives[uid]
        if not kept.purging or life.purge:
            return
        now = SimClock(self._loop).wall()
        asked = self.asked_to_purge & (life.names | {uid})
        self.demand(
            "what is kept is kept for its time",
            asked or kept.purge_at <= now + 1,
            f"{uid}: {kept.purge_at - now:.1f} s early",
        )

    def _settled(self, host: HostName, uid: Uid) -> None:
        """[S8] What is kept is down."""
        runs = uid in self.hosts[host].runtime.running
        self.demand(
            "what is deleted is down", not runs or uid in self.truth.specs, f"{uid} on {host}"
        )

    def _vanished(self, uid: Uid) -> None:
        """[S2, S8, S10] The last trace goes only if somebody asked, and when nothing of it is left."""
        life = self.truth.lives[uid]
        life.vanished = True
        asked = self.asked_to_delete & (life.names | {uid})
        self.demand("nothing vanishes that nobody deleted", asked, f"{uid}")
        for name in sorted(life.hosts):
            host = self.hosts[name]
            left = host.roots.there(uid) or uid in host.runtime.running
            self.demand("what vanishes is gone from its host", not left, f"{uid} on {name}")

    def _name(self, name: tuple[str, str]) -> None:
        """[S4]"""
        uid = self.truth.names.get(name)
        ve = self.truth.specs.get(uid) if uid is not None else None
        self.demand(
            "each name is of a VE",
            uid is None or (ve is not None and (ve.project, ve.name) == name),
            f"{name}: {uid}",
        )

    def _address(self, ip: str) -> None:
        """[S4]"""
        uid = self.truth.addresses.get(ip)
        ve = self.truth.specs.get(uid) if uid is not None else None
        self.demand(
            "each address is of a VE",
            uid is None or ve is not None,
            f"{ip}: {uid}",
        )

    def _status(self, uid: Uid) -> None:
        status, placement = self.truth.statuses.get(uid), self.truth.placements.get(uid)
        if status is None:
            return
        self.fencing.reported(uid)
        own = placement is not None and (
            (status.host, status.placement_generation) == (placement.host, placement.generation)
        )
        self.demand("a status is of the VE's placement", own, f"{uid}: {status.host}, {placement}")

    def _rooms(self, touched: Sequence[tuple[Kind, tuple[str, ...]]]) -> None:
        """[S5] No host is given more than it has, at any revision."""
        for host in sorted(self._concerned(touched)):
            facts = self.truth.hosts.get(host)
            if facts is None:
                continue
            taken, capacity = self.truth.committed(host), facts.capacity
            fits = (
                taken.cpu_millis <= capacity.cpu_millis
                and taken.memory_bytes <= capacity.memory_bytes
                and taken.disk_bytes <= capacity.disk_bytes
                and taken.pids <= capacity.pids
            )
            self.demand("no host is overfilled", fits, f"{host}: {taken} of {capacity}")

    def _concerned(self, touched: Sequence[tuple[Kind, tuple[str, ...]]]) -> set[HostName]:
        found: set[HostName] = set()
        for kind, parts in touched:
            if kind in (Kind.VE_PLACEMENT, Kind.VE_SPEC):
                placement = self.truth.placements.get(Uid(parts[0]))
                found |= {placement.host} if placement is not None else set()
        return found

    # Hosts.

    def starts(self, host: "Host", plan: StartPlan) -> None:
        """[S1, S4, S7, S8] Just before a VE starts."""
        uid, truth = plan.uid, self.truth
        self.fencing.starts(host, uid)
        life = truth.lives[uid]
        self.demand("a start has a placement", host.name in life.hosts, f"{uid} on {host.name}")
        self.demand("what vanished never runs again", not life.vanished, f"{uid} on {host.name}")
        self._ids(host, plan)
        self.started[host.name, uid] = self._loop.time()

    def _ids(self, host: "Host", plan: StartPlan) -> None:
        """A range is another's as long as anything of that one is there."""
        for (name, uid), base in self.bases.items():
            if name == host.name and uid != plan.uid and base == plan.id_base:
                there = uid in host.runtime.running or host.roots.there(uid)
                self.demand(
                    "id ranges are not shared",
                    not there,
                    f"{plan.uid} and {uid} on {host.name}: {base}",
                )
        self.bases[host.name, plan.uid] = plan.id_base

    def stops(self, host: "Host", uid: Uid) -> None:
        """[S13] A VE that is to run is stopped once for each restart and each new root that was asked."""
        entry = self._wish(host, uid)
        self.demand("no set, no stop", entry is not None, f"{uid} on {host.name}")
        if entry is None or entry.action not in UP or self.fencing.excuses(host, uid):
            return
        if self._loop.time() - self.lifted.get((host.name, uid), -1000.0) < STOP_S:
            return  # it is being stopped by a wish that was taken back
        why = (host.name, uid, entry.restart_seq, entry.root.seq)
        asked = self._asks(*why)
        allowed = asked + self.excuses[host.name, uid] if asked else 0
        self.demand(
            "nothing is stopped that nobody asked to stop",
            self.stopped[why] < allowed,
            f"{uid} on {host.name}, {self.stopped[why]} times before for {entry.restart_seq} and {entry.root.seq}",
        )

    def _asks(self, host: str, uid: Uid, restart: int, root: int) -> int:
        """How much of it no stop was for yet: a new root whose image is still to come follows the restart by a stop of its own."""
        before = [
            key[2:]
            for key, times in self.stopped.items()
            if times and key[:2] == (host, uid) and key[2:] != (restart, root)
        ]
        restarts = restart > 0 and all(restart != other for other, _ in before)
        roots = root > 0 and all(root != other for _, other in before)
        return restarts + roots

    def has_stopped(self, host: "Host", uid: Uid) -> None:
        """As above, and it has ended."""
        entry = self._wish(host, uid)
        if entry is not None and entry.action in UP and not self.fencing.excuses(host, uid):
            self.stopped[host.name, uid, entry.restart_seq, entry.root.seq] += 1

    def drops(self, host: "Host", uid: Uid) -> None:
        """A root is replaced once for each time that it was asked."""
        whole, key = host.roots._limit_file(uid).exists(), (host.name, uid)
        allowed = self.truth.lives[uid].root_seq + self.excuses[key] + self.fencing.moved_to[key]
        self.demand(
            "a root is replaced only as asked",
            not whole or self.dropped[key] < allowed,
            f"{uid} on {host.name}: {self.dropped[key]} times before, {allowed} asked",
        )
        self.demand("the root of a running VE stays", uid not in host.runtime.running, f"{uid}")

    def has_dropped(self, host: "Host", uid: Uid, *, whole: bool) -> None:
        """As above; what was only a part does not count."""
        self.dropped[host.name, uid] += whole

    def dies(self, host: "Host") -> None:
        """An agent that dies before it could write down what it has just done does it again."""
        now = self._loop.time()
        for uid in {uid for name, uid in (*self.started, *self.dropped) if name == host.name}:
            fresh = now - self.started.get((host.name, uid), now) < JUST_NOW_S
            if fresh or host.disk.failing is not None or now - host.disk_well_at < JUST_NOW_S:
                self.excuses[host.name, uid] += 1

    def deletes(self, host: "Host", uid: Uid) -> None:
        """Absence destroys nothing: only a purge does."""
        life = self.truth.lives[uid]
        self.demand(
            "nothing is destroyed that nobody asked to purge",
            (life.purge and host.name in life.hosts) or (host.name, uid) in self.fencing.purged,
            f"{uid} on {host.name}",
        )
        self.demand("the root of a running VE stays", uid not in host.runtime.running, f"{uid}")

    def deletes_snapshot(self, host: "Host", uid: Uid, seq: int) -> None:
        leaving = self.truth.lives[uid].snapshots_leaving
        self.demand(
            "a snapshot goes only as asked", seq in leaving, f"{seq} of {uid} on {host.name}"
        )

    def deletes_image(self, host: "Host", digest: Digest) -> None:
        """Not the last copy of an image that is one."""
        held = [
            name
            for name, other in self.hosts.items()
            if name != host.name and digest in {image.digest for image in other.images.held()}
        ]
        self.demand(
            "the last copy of an image stays",
            held or digest not in self.truth.images,
            f"{digest} on {host.name}",
        )

    def applied(self, host: "Host", host_set: HostSet, before: Order, held: Order) -> None:
        """[S6] The order of what a host holds never goes back, and a set of an older leader has no effect."""
        self.demand("sets do not go back", held >= before, f"{host.name}: {before}, then {held}")
        self.demand(
            "an older set has no effect", host_set.order >= before or held == before, f"{host.name}"
        )
        host.acked = max(host.acked, held)

    def wishes(self, host: "Host", before: HostSet | None, now: HostSet) -> None:
        """Notes which VEs shall run again that were to be down a moment ago."""
        down = (
            {e.uid for e in before.entries if e.action not in UP} if before is not None else set()
        )
        for entry in now.entries:
            if entry.uid in down and entry.action in UP:
                self.lifted[host.name, entry.uid] = self._loop.time()

    def recovered(self, host: "Host") -> None:
        """What was acknowledged as durable is there after each death."""
        assert host.manager is not None
        held = host.manager.held
        self.demand(
            "what was acknowledged is durable",
            held >= host.acked,
            f"{host.name}: {held}, acknowledged {host.acked}",
        )

    def acknowledges(self, controller: "Controller", host: str, received_at: float) -> None:
        """[contract 6] Whoever answers a heartbeat still led after it had come."""
        self.fencing.acknowledges(host, received_at)
        epoch = controller.epoch
        later = [at for at, taken in self.truth.epochs if taken > epoch]
        self.demand(
            "only a leader keeps a host alive",
            not later or later[0] >= received_at,
            f"{host} by {controller.name} of epoch {epoch}: came at {received_at:.3f}, replaced at {later[:1]}",
        )

    def ended(self, controller: "Controller", error: BaseException | None) -> None:
        self.note(f"{controller.name} ended: {_words(error)}")
        for cause in _leaves(error):
            fine = type(cause).__name__ in (
                "NotLeader",
                "EndedEarly",
                "Unavailable",
                "Ambiguous",
                "TimedOut",
                "CancelledError",
            )
            self.demand(
                "a controller ends only when it is deposed", fine, f"{controller.name}: {cause!r}"
            )

    def _wish(self, host: "Host", uid: Uid) -> Any:
        worker = host.manager.worker(uid) if host.manager is not None else None
        return worker.wanted if worker is not None else None


def _leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error] if error is not None else []


def _words(error: BaseException | None) -> str:
    return ", ".join(f"{type(leaf).__name__}: {leaf}" for leaf in _leaves(error)) or "as asked"
