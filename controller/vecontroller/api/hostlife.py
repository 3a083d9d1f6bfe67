"""What operators do with hosts: cordon, remove and add, vouch that one is off, put another machine in its place."""
# ruff: noqa: N802 - names of RPCs

from collections.abc import Callable

import msgspec
import structlog

from veapi import validate
from veapi.channel import caller
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import HostName, HostSpec
from veapi.v1 import hostlife_pb2, hostlife_pb2_grpc, types_pb2
from vecontroller.api.commits import ATTEMPTS, settle, worn_out
from vecontroller.api.describe import Describe
from vecontroller.api.lookup import find_host
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context
from vecontroller.removal import removal
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put, Write
from vecontroller.view import View
from vecontroller.writer import LostRace

log = structlog.get_logger()
REASON_LIMIT = 200
BATCH = 8
"""VEs whose records are removed in one transaction; each is up to nine keys."""
FORGET_BATCHES = 10_000
Change = Callable[[HostSpec], HostSpec]


class HostLifeService(hostlife_pb2_grpc.HostLifeServiceServicer):
    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._describe = Describe(deps)

    async def Cordon(
        self, request: hostlife_pb2.CordonHostRequest, context: Context
    ) -> types_pb2.Host:
        reason = _reason(request.reason) if request.cordoned else ""

        def change(spec: HostSpec) -> HostSpec:
            return msgspec.structs.replace(spec, cordoned=request.cordoned, cordon_reason=reason)

        name = self._known(request.host)
        await self._change(name, change)
        log.info("host cordoned", host=name, on=request.cordoned, by=self._who(context))
        return self._shown(name)

    async def Remove(
        self, request: hostlife_pb2.RemoveHostRequest, context: Context
    ) -> hostlife_pb2.RemoveHostResponse:
        name = self._known(request.host)
        gone = await self._forget(name) if request.forget_ves else 0

        def change(spec: HostSpec) -> HostSpec:
            self._must_be_silent(name, "remove")
            coming = bool(self._deps.scheduler.coming(name))
            refuse_holding(self._deps.mirror.view, name, coming=coming)
            return HostSpec(removed_at=self._deps.clock.wall(), taints=spec.taints)

        await self._change(name, change, forget=True)
        log.info("host removed", host=name, forgotten_ves=gone, by=self._who(context))
        return hostlife_pb2.RemoveHostResponse(ves=gone)

    async def Add(
        self, request: hostlife_pb2.AddHostRequest, context: Context
    ) -> hostlife_pb2.AddHostResponse:
        name = HostName(validate.name("host", request.host))
        held = self._deps.mirror.view.host_specs.get(name)
        if held is None or held.value.removed_at is None:
            raise NotFound(
                f"no host {name} was removed",
                hint="a host that was never here comes by itself, with a certificate of the cluster",
            )
        await self._change(name, lambda spec: msgspec.structs.replace(spec, removed_at=None))
        log.info("host may come again", host=name, by=self._who(context))
        return hostlife_pb2.AddHostResponse()

    async def Fence(
        self, request: hostlife_pb2.FenceHostRequest, context: Context
    ) -> types_pb2.Host:
        name, who = self._known(request.host), self._who(context)

        def change(spec: HostSpec) -> HostSpec:
            if not request.powered_off:
                return msgspec.structs.replace(spec, powered_off_at=None, powered_off_by="")
            self._must_be_silent(name, "vouch that it is off")
            if spec.powered_off_at is not None:
                return spec
            return msgspec.structs.replace(
                spec, powered_off_at=self._deps.clock.wall(), powered_off_by=who
            )

        await self._change(name, change)
        log.warning("host vouched to be off", host=name, off=request.powered_off, by=who)
        return self._shown(name)

    async def Replace(
        self, request: hostlife_pb2.ReplaceHostRequest, context: Context
    ) -> types_pb2.Host:
        name = self._known(request.host)

        def change(spec: HostSpec) -> HostSpec:
            self._must_be_silent(name, "replace")
            if spec.powered_off_at is None and held_by(self._deps.mirror.view, name):
                raise Conflict(
                    f"host {name} has {held_by(self._deps.mirror.view, name)}, which may run there",
                    hint=f"see that it is off, say so by `vectl host fence {name} --powered-off`, "
                    "then replace it",
                )
            return msgspec.structs.replace(spec, replaced=True)

        await self._change(name, change)
        log.warning("host may be another machine", host=name, by=self._who(context))
        return self._shown(name)

    # How.

    def _known(self, text: str) -> HostName:
        name = HostName(validate.name("host", text))
        find_host(self._deps.mirror.view, name)
        return name

    def _shown(self, name: HostName) -> types_pb2.Host:
        return self._describe.host(name, find_host(self._deps.mirror.view, name))

    async def _forget(self, name: HostName) -> int:
        """Removes the records of all that the host has; how many VEs that were. Conflict unless it was vouched to be off."""
        count = len(self._deps.mirror.view.placed_on.get(name, ()))
        for _ in range(FORGET_BATCHES):
            if not await self._forget_some(name):
                break
        return count

    async def _forget_some(self, name: HostName) -> bool:
        """One transaction of it; False: it has nothing. Each looks anew whether the host is still silent and vouched to be off."""
        for attempt in range(1, ATTEMPTS + 1):
            mark, batch = self._off(name), forgetting(self._deps.mirror.view, name)
            if batch is None:
                return False
            guards, writes = batch
            try:
                await self._deps.writer.commit([mark, *guards], writes, confirm=(writes[0].key, ""))
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
            else:
                return True
        raise worn_out(f"host {name}")

    def _off(self, name: HostName) -> Guard:
        """Of the word that the host is off. Conflict: nobody gave it, or the host was heard."""
        self._must_be_silent(name, "remove")
        spec = self._deps.mirror.view.host_specs.get(name)
        if spec is None or spec.value.powered_off_at is None:
            raise Conflict(
                f"can't forget what host {name} has: it may be running there",
                hint=f"see that it is off, and say so by `vectl host fence {name} --powered-off`",
            )
        return Guard(key=keys.host_spec(name), mod_revision=spec.mod_revision)

    def _who(self, context: Context) -> str:
        return caller(context, self._deps.cluster).name

    def _must_be_silent(self, name: HostName, what: str) -> None:
        cluster = self._deps.mirror.view.cluster
        least_s = cluster.value.timing.fence_after_s if cluster is not None else 0.0
        silent_s = self._deps.hosts.silent_for(name)
        if silent_s < least_s:
            raise Conflict(
                f"can't {what}: host {name} was heard, or this controller began to listen, "
                f"{silent_s:.1f} s ago",
                hint=f"stop it; it counts as silent after {least_s:g} s",
            )

    async def _change(self, name: HostName, change: Change, *, forget: bool = False) -> None:
        """Writes what `change` makes of what operators said; with `forget`, its facts go in the same transaction."""
        for attempt in range(1, ATTEMPTS + 1):
            held = self._deps.mirror.view.host_specs.get(name)
            before = held.value if held is not None else HostSpec()
            after = change(before)
            if after == before:
                return
            try:
                await self._commit(name, after, held.mod_revision if held else 0, forget=forget)
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
            else:
                return
        raise worn_out(f"host {name}")

    async def _commit(self, name: HostName, spec: HostSpec, revision: int, *, forget: bool) -> None:
        key, op_id = keys.host_spec(name), self._deps.ids.new()
        value = values.encode_host_spec(msgspec.structs.replace(spec, op_id=op_id))
        guards, writes = [Guard(key=key, mod_revision=revision)], [Put(key=key, value=value)]
        gone: list[Write] = []
        facts = self._deps.mirror.view.hosts.get(name)
        if forget and facts is not None:
            status = keys.host_status(name)
            guards.append(Guard(key=status, mod_revision=facts.mod_revision))
            gone.append(Delete(key=status))
        await self._deps.writer.commit(guards, [*writes, *gone], confirm=(key, op_id))


def _reason(text: str) -> str:
    if len(text) > REASON_LIMIT or not text.isprintable():
        raise InvalidInput(
            f"reason: must be one line of at most {REASON_LIMIT} characters", hint="say it shorter"
        )
    return text.strip()


def held_by(view: View, host: HostName) -> str:
    """What the store says that the host has, in words and numbers; empty: nothing."""
    found = (
        (len(view.placed_on.get(host, ())), "VE", "VEs"),
        (len(view.deleted_on.get(host, ())), "root of a deleted VE", "roots of deleted VEs"),
        (len(view.left_on.get(host, ())), "root of a moved VE", "roots of moved VEs"),
    )
    return ", ".join(
        f"{count} {one if count == 1 else many}" for count, one, many in found if count
    )


def forgetting(view: View, host: HostName) -> tuple[list[Guard], list[Write]] | None:
    """Guards and writes that remove the records of some of what the host has; None: it has nothing. The first key is guarded."""
    guards: list[Guard] = []
    writes: list[Write] = []
    for uid in sorted(view.placed_on.get(host, ()))[:BATCH]:
        if uid in view.ves:
            more, removed = removal(view, uid)
            guards += more
            writes += removed
        else:
            guards.append(
                Guard(key=keys.ve_placement(uid), mod_revision=view.placements[uid].mod_revision)
            )
            writes.append(Delete(key=keys.ve_placement(uid)))
    kept = [(keys.ve_deleted(uid), view.deleted[uid]) for uid in view.deleted_on.get(host, ())]
    kept += [(keys.ve_left(host, uid), view.left[host, uid]) for uid in view.left_on.get(host, ())]
    for key, held in sorted(kept, key=lambda each: each[0])[:BATCH]:
        guards.append(Guard(key=key, mod_revision=held.mod_revision))
        writes.append(Delete(key=key))
    return (guards, writes) if writes else None


def refuse_holding(view: View, host: HostName, *, coming: bool) -> None:
    """Conflict, with what it has, for a host that can't be forgotten. `coming`: VEs are about to get there."""
    holds = held_by(view, host)
    if holds:
        raise Conflict(
            f"host {host} has {holds}",
            hint="start it again and delete them; of a machine that is gone for good, say so by "
            f"`vectl host fence {host} --powered-off`, and forget them by `--forget-ves`",
        )
    if coming:
        raise Conflict(f"host {host} is being given VEs", hint="try again in a moment")
