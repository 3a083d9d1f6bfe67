"""What must have come about some time after the last fault: the cluster is as it was asked to be, and nothing is left over."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from sim.controller import Controller
from sim.host import Host
from veagent.record import beside_disk_and_rates
from veapi import codec
from veapi.model import VE, HostFacts, Placement, Run, Uid, VEStatus

if TYPE_CHECKING:
    from sim.world import World


FETCHING = ("ImageFetching", "RootFailed", "SourceMissing")


class Quiet:
    """Looks once."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._truth = world.checks.truth
        self._leader: Controller

    def wrong(self) -> list[str]:
        """What is not yet as it shall be."""
        return list(self._wrong())

    def _wrong(self) -> Iterator[str]:
        serving = [each for each in self._world.controllers.values() if each.serving]
        if len(serving) != 1:
            yield f"{len(serving)} controllers lead"
            return
        self._leader = serving[0]
        for host in self._world.hosts.values():
            if not host.up or host.link is None or not host.link.connected:
                yield f"{host.name} has no session"
                return
        yield from self._ves()
        yield from self._deleted()
        for host in self._world.hosts.values():
            yield from self._host(host)
        yield from self._images()

    def _ves(self) -> Iterator[str]:
        for uid, ve in sorted(self._truth.specs.items()):
            placement = self._truth.placements.get(uid)
            if ve.delete_requested_at is not None:
                yield f"{ve.name} is still being deleted"
            elif placement is None:
                yield from self._unplaced(uid, ve)
            else:
                yield from self._placed(uid, ve, placement)

    def _unplaced(self, uid: Uid, ve: VE) -> Iterator[str]:
        core = self._leader.core
        assert core is not None
        if uid not in core.scheduler.refusals:
            yield f"{ve.name} has neither a host nor a reason"
        if ve.root.from_uid:
            return
        for name, host in self._truth.hosts.items():
            taken, has, more = self._truth.committed(name), host.capacity, ve.spec.request
            fits = (
                taken.cpu_millis + more.cpu_millis <= has.cpu_millis
                and taken.memory_bytes + more.memory_bytes <= has.memory_bytes
                and taken.disk_bytes + more.disk_bytes <= has.disk_bytes
                and taken.pids + more.pids <= has.pids
            )
            if fits and ve.spec.host in ("", name) and not core.reserved.on(name):
                yield f"{ve.name} would fit on {name}"

    def _placed(self, uid: Uid, ve: VE, placement: Placement) -> Iterator[str]:
        host = self._world.hosts[placement.host]
        instance, status = host.runtime.running.get(uid), self._truth.statuses.get(uid)
        if status is None or status.placement_generation != placement.generation:
            yield f"{ve.name} has no status of its placement"
            return
        if self._hopeless(ve, status):
            return
        off = status.reason == "PoweredOff" and uid in self._world.checks.powered_off
        wanted = ve.spec.run is not Run.STOPPED and not off
        if (instance is not None) != wanted:
            yield f"{ve.name} {uid[:8]} runs: {instance is not None}, on {host.name}, {status.state} {status.reason} {status.message}"
            return
        if instance is not None:
            if instance.frozen != (ve.spec.run is Run.FROZEN):
                yield f"{ve.name} is frozen: {instance.frozen}"
            if beside_disk_and_rates(instance.limits) != beside_disk_and_rates(ve.spec.limits):
                yield f"{ve.name} has other limits"
        yield from self._observed(ve, host)

    def _hopeless(self, ve: VE, status: VEStatus) -> bool:
        """Its disk is to be made of what is not there any more: a clone's source, a snapshot, a deleted image."""
        made_of_other = bool(ve.root.seq or ve.root.from_uid)
        if status.reason in ("SourceMissing", "RootFailed") and made_of_other:
            return True
        return status.reason in FETCHING and ve.image_digest not in self._truth.images

    def _observed(self, ve: VE, host: Host) -> Iterator[str]:
        status = self._truth.statuses[ve.uid]
        if status.observed_generation != ve.generation:
            yield f"{ve.name}: generation {status.observed_generation} of {ve.generation} {status}"
        if status.observed_restart_seq < ve.restart_seq and ve.spec.run is not Run.STOPPED:
            yield f"{ve.name}: restart {status.observed_restart_seq} of {ve.restart_seq}"
        if status.observed_root_seq < ve.root.seq:
            yield f"{ve.name}: root {status.observed_root_seq} of {ve.root.seq}"
        for wish in ve.snapshots:
            there = next((each for each in status.snapshots if each.seq == wish.seq), None)
            if wish.deleting or (there is None and status.state.value != "Creating"):
                yield f"{ve.name}: snapshot {wish.tag} {'is leaving' if wish.deleting else 'is not taken'}"
        assert host.manager is not None
        report = host.manager.report(ve.uid)
        if report is None or _lasting(report.status) != _lasting(status):
            yield f"{ve.name}: the store does not have what {host.name} reports"

    def _deleted(self) -> Iterator[str]:
        now = self._leader.clock.wall()
        for kept in (*self._truth.deleted.values(), *self._truth.left.values()):
            uid, host = kept.ve.uid, self._world.hosts[kept.placement.host]
            if kept.purging:
                yield f"{kept.ve.name} is still being purged"
            elif kept.purge_at + 15 < now:
                yield f"{kept.ve.name} should have been purged"
            elif uid in host.runtime.running and not self._is_at(uid, host):
                yield f"{kept.ve.name} is deleted and runs"
            elif kept.disk_used_bytes and not host.roots.there(uid):
                yield f"{kept.ve.name} is deleted and lost"

    def _is_at(self, uid: Uid, host: Host) -> bool:
        placement = self._truth.placements.get(uid)
        return placement is not None and placement.host == host.name

    def _host(self, host: Host) -> Iterator[str]:
        """[S10] Nothing is left over."""
        manager = host.manager
        assert manager is not None
        named = {
            uid
            for uid in (*self._truth.specs, *self._truth.deleted)
            if self._truth.placements.get(
                uid, getattr(self._truth.deleted.get(uid), "placement", None)
            )
            and (self._truth.placements.get(uid) or self._truth.deleted[uid].placement).host
            == host.name
        }
        named |= {uid for name, uid in self._truth.left if name == host.name}
        left = {*host.runtime.running, *host.runtime.known, *host.wires.attached}
        left |= {Uid(path.name) for path in host.roots._folder.glob("*")}
        left |= {worker.uid for worker in manager.workers() if worker.record is not None}
        for uid in sorted(left - named):
            yield f"{host.name} has something of {uid}, which is nowhere asked for"
        stored, said = self._truth.hosts.get(host.name), manager.facts()  # type: ignore[call-overload]
        if stored != said:
            yield f"the store does not have what {host.name} says of itself: {_differences(stored, said)}"

    def _images(self) -> Iterator[str]:
        knobs = self._world.story.knobs
        for digest in self._truth.images:
            held = [
                h
                for h in self._world.hosts.values()
                if any(i.digest == digest for i in h.images.held())
            ]
            if len(held) < min(knobs.replicas, knobs.hosts):
                yield f"image {digest[7:15]} is on {len(held)} hosts"

    def final(self) -> None:
        """What holds once all is as asked."""
        checks, truth = self._world.checks, self._truth
        for uid, restarts in checks.acked_restarts.items():
            seen = truth.lives[Uid(uid)].restart_seq
            checks.demand(
                "no restart is lost",
                seen >= restarts,
                f"{uid}: {restarts} acknowledged, {seen} counted",
            )
        for controller in self._world.controllers.values():
            self._mirror(controller)

    def _mirror(self, controller: Controller) -> None:
        """[S11] What a leader sees is what the store had at that revision."""
        if not controller.serving:
            return
        assert controller.core is not None
        mirror, etcd = controller.core.mirror, self._world.etcd
        stored = {key: item.mod_revision for key, item in etcd.at(mirror.view.revision).items()}
        self._world.checks.demand(
            "a mirror shows the store",
            mirror._known == stored,
            f"{controller.name} at {mirror.view.revision}",
        )


def _lasting(status: VEStatus) -> VEStatus:
    """As the store has it; events are for people, and the newest may be on its way."""
    stored = codec.status_in(codec.status_out(status))
    return msgspec.structs.replace(stored, events=())


def _differences(stored: HostFacts | None, said: HostFacts) -> str:
    if stored is None:
        return "nothing is stored"
    names = [
        name for name in HostFacts.__struct_fields__ if getattr(stored, name) != getattr(said, name)
    ]
    return ", ".join(f"{name}: {getattr(stored, name)} and {getattr(said, name)}" for name in names)
