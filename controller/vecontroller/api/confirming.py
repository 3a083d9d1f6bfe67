"""An operator's word that a restored store counts: what it would do, and that it is done."""

from collections.abc import Collection, Sequence

import msgspec
import structlog

from veapi.errors import Conflict, Unavailable
from veapi.model import Cluster, HostName, HostState
from veapi.v1 import cluster_pb2
from vecontroller.api.aftermath import Said, Stray, hosts_of, on_host, strays_of, unplaced
from vecontroller.api.commits import ATTEMPTS, settle, worn_out
from vecontroller.api.ports import ApiDeps
from vecontroller.incarnation import confirmed, is_confirmed
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held
from vecontroller.writer import LostRace

log = structlog.get_logger()
BATCH = 30
"""Two guards each, below the limit of a transaction."""


class Confirming:
    """Everything else stands still meanwhile, so that the owners of what is written here do not write it."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._said = Said(self._heard, deps.orphans.orphans)

    def preview(self) -> cluster_pb2.ConfirmResponse:
        """What confirming would do, as far as hosts have said what they have."""
        view, cluster = self._deps.mirror.view, self._held().value
        hosts = [] if is_confirmed(cluster) else [self._host(host) for host in hosts_of(view)]
        return cluster_pb2.ConfirmResponse(
            cluster=cluster.name,
            incarnation=cluster.incarnation,
            confirmed=is_confirmed(cluster),
            hosts=hosts,
            unplaced=unplaced(view),
        )

    async def confirm(self, incarnation: int, without: Collection[str]) -> None:
        """Conflict when the store is of another incarnation, or a host that was not named in `without` is not heard."""
        for attempt in range(1, ATTEMPTS + 1):
            held = self._held()
            if held.value.incarnation != incarnation:
                raise Conflict(
                    f"the store is of incarnation {held.value.incarnation}, not {incarnation}",
                    hint="look again at what would change",
                )
            if is_confirmed(held.value):
                return
            self._check_hosts(held.value, without)
            try:
                await self._follow(held, strays_of(self._deps.mirror.view, self._said))
                await self._write(held)
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
            else:
                return
        raise worn_out("the store")

    def _held(self) -> Held[Cluster]:
        held = self._deps.mirror.view.cluster
        if held is None:
            raise Unavailable(
                "the cluster's record can't be read", hint="look at the controller's log"
            )
        return held

    def _heard(self, host: HostName) -> bool:
        ready = self._deps.hosts.host_state(host) is HostState.READY
        return ready and self._deps.orphans.has_reported(host)

    def _host(self, host: HostName) -> cluster_pb2.ConfirmHost:
        if not self._heard(host):
            return cluster_pb2.ConfirmHost(host=host, heard=False)
        found = on_host(self._deps.mirror.view, host, self._said)
        return cluster_pb2.ConfirmHost(
            host=host,
            heard=True,
            starts=found.starts,
            stops=found.stops,
            removes=found.removes,
            restarts=found.restarts,
            stays=found.stays,
            orphans=found.orphans,
        )

    def _check_hosts(self, cluster: Cluster, without: Collection[str]) -> None:
        """A host that is not heard may run what the store has elsewhere: until its lease has run out, at least."""
        away = [host for host in hosts_of(self._deps.mirror.view) if not self._heard(host)]
        unnamed = [host for host in away if host not in without]
        if unnamed:
            raise Conflict(
                f"not heard of yet: {', '.join(unnamed)}; they may run what was moved there",
                hint="wait for them; for one that is off, say --without NAME",
            )
        left_s = max((self._left_s(cluster, host) for host in away), default=0.0)
        if left_s > 0:
            raise Conflict(
                "a host that is left out may not have noticed yet that it is",
                hint=f"try again in {left_s:.0f} s",
            )

    def _left_s(self, cluster: Cluster, host: HostName) -> float:
        return cluster.timing.move_after_s - self._deps.hosts.silent_for(host)

    async def _follow(self, cluster: Held[Cluster], strays: Sequence[Stray]) -> None:
        """What was moved stays where it is."""
        for start in range(0, len(strays), BATCH):
            await self._place(cluster, strays[start : start + BATCH])

    async def _place(self, cluster: Held[Cluster], batch: Sequence[Stray]) -> None:
        view, op_id = self._deps.mirror.view, self._deps.ids.new()
        now = self._deps.clock.wall()
        guards, writes = [_of_cluster(cluster)], []
        for stray in batch:
            key, spec = keys.ve_placement(stray.uid), view.ves.get(stray.uid)
            before = view.placements.get(stray.uid)
            revision = before.mod_revision if before is not None else 0
            guards.append(Guard(key=key, mod_revision=revision))
            spec_revision = spec.mod_revision if spec is not None else 0
            guards.append(Guard(key=keys.ve_spec(stray.uid), mod_revision=spec_revision))
            placement = msgspec.structs.replace(stray.placement, decided_at=now, op_id=op_id)
            writes.append(Put(key=key, value=values.encode_placement(placement)))
            log.warning("ve stays where it is", ve=stray.uid, host=stray.placement.host)
        await self._deps.writer.commit(guards, writes, confirm=(writes[0].key, op_id))

    async def _write(self, held: Held[Cluster]) -> None:
        op_id = self._deps.ids.new()
        record = msgspec.structs.replace(confirmed(self._deps.mirror.view), op_id=op_id)
        put = Put(key=keys.CLUSTER, value=values.encode_cluster(record))
        await self._deps.writer.commit([_of_cluster(held)], [put], confirm=(keys.CLUSTER, op_id))


def _of_cluster(held: Held[Cluster]) -> Guard:
    return Guard(key=keys.CLUSTER, mod_revision=held.mod_revision)
