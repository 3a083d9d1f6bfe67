"""The switches of the cluster: whether fences count, and whether VEs are moved from silent hosts."""
# ruff: noqa: N802 - names of RPCs

import msgspec
import structlog

from veapi import codec
from veapi.channel import caller
from veapi.errors import InvalidInput, Unavailable
from veapi.model import Cluster, HostFacts, HostName, HostState
from veapi.v1 import hostlife_pb2, hostlife_pb2_grpc
from vecontroller import switching
from vecontroller.api.commits import ATTEMPTS, settle, worn_out
from vecontroller.api.describe import stamp
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context
from vecontroller.failover.judge import of_wish
from vecontroller.incarnation import is_confirmed
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held, View
from vecontroller.writer import LostRace

log = structlog.get_logger()
LONGEST_S = 7 * 86_400.0


class SwitchService(hostlife_pb2_grpc.SwitchServiceServicer):
    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps

    async def Status(
        self, request: hostlife_pb2.SwitchStatusRequest, context: Context
    ) -> hostlife_pb2.SwitchStatus:
        del request, context
        return self._status()

    async def Disarm(
        self, request: hostlife_pb2.DisarmRequest, context: Context
    ) -> hostlife_pb2.SwitchStatus:
        if not 1 <= request.for_s <= LONGEST_S:
            raise InvalidInput(
                f"for: {request.for_s:g} s is not within 1s and 7d", hint="e.g. --for 1h"
            )
        until = self._deps.clock.wall() + request.for_s
        await self._change(lambda record: switching.disarmed(record, until))
        log.warning("cluster disarmed", seconds=request.for_s, by=self._who(context))
        return self._status()

    async def Arm(
        self, request: hostlife_pb2.ArmRequest, context: Context
    ) -> hostlife_pb2.SwitchStatus:
        del request
        await self._change(switching.armed)
        log.info("cluster armed", by=self._who(context))
        return self._status()

    async def ResumeMoves(
        self, request: hostlife_pb2.ResumeMovesRequest, context: Context
    ) -> hostlife_pb2.ResumeMovesResponse:
        stopped, stranded = self._held().value.moves_stopped, self._stranded()
        if not request.dry_run:
            silent = tuple(sorted(self._silent()))
            await self._change(lambda record: switching.resumed(record, silent))
            log.warning("moves resumed", hosts=silent, by=self._who(context))
        return hostlife_pb2.ResumeMovesResponse(stopped=stopped, hosts=stranded)

    # How.

    def _who(self, context: Context) -> str:
        return caller(context, self._deps.cluster).name

    def _held(self) -> Held[Cluster]:
        held = self._deps.mirror.view.cluster
        if held is None:
            raise Unavailable(
                "the cluster's record can't be read", hint="look at the controller's log"
            )
        return held

    def _status(self) -> hostlife_pb2.SwitchStatus:
        cluster = self._held().value
        message = hostlife_pb2.SwitchStatus(
            cluster=cluster.name,
            incarnation=cluster.incarnation,
            leader=self._deps.controller,
            epoch=self._deps.leader.epoch,
            timing=codec.timing_out(cluster.timing),
            arming=cluster.arming,
            moves_stopped=cluster.moves_stopped,
            unconfirmed=self._unconfirmed(cluster),
            restored=not is_confirmed(cluster),
        )
        if cluster.disarmed_until is not None:
            message.disarmed_until.CopyFrom(stamp(cluster.disarmed_until))
        return message

    def _unconfirmed(self, cluster: Cluster) -> list[hostlife_pb2.UnconfirmedHost]:
        hosts = sorted(self._deps.mirror.view.hosts.items())
        found = ((name, _unconfirmed(held.value, cluster)) for name, held in hosts)
        return [hostlife_pb2.UnconfirmedHost(host=name, why=why) for name, why in found if why]

    def _silent(self) -> list[HostName]:
        view, least_s = self._deps.mirror.view, self._held().value.timing.fence_after_s
        hosts = self._deps.hosts
        return [
            name
            for name in view.hosts
            if hosts.host_state(name) is not HostState.READY and hosts.silent_for(name) >= least_s
        ]

    def _stranded(self) -> list[hostlife_pb2.StrandedHost]:
        view = self._deps.mirror.view
        counted = ((name, _movable(view, name)) for name in sorted(self._silent()))
        return [hostlife_pb2.StrandedHost(host=name, ves=ves) for name, ves in counted]

    async def _change(self, change: switching.Change) -> None:
        """Writes what `change` makes of the record, unless that is the same."""
        for attempt in range(1, ATTEMPTS + 1):
            held = self._held()
            if change(held.value) == held.value:
                return
            op_id = self._deps.ids.new()
            record = msgspec.structs.replace(change(held.value), op_id=op_id)
            try:
                await self._deps.writer.commit(
                    [Guard(key=keys.CLUSTER, mod_revision=held.mod_revision)],
                    [Put(key=keys.CLUSTER, value=values.encode_cluster(record))],
                    confirm=(keys.CLUSTER, op_id),
                )
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
            else:
                return
        raise worn_out("the cluster's record")


def _unconfirmed(facts: HostFacts, cluster: Cluster) -> str:
    """Why no VE is moved from the host by what it said last; empty: it is."""
    fence = facts.fence
    if not fence.live:
        return fence.refuses or "its vefence does not run"
    if fence.timing != cluster.timing:
        return "it goes by other times"
    if fence.arming != cluster.arming:
        return "it has not confirmed the last arm or disarm"
    return ""


def _movable(view: View, host: HostName) -> int:
    """VEs of a silent host that are to run elsewhere."""
    placed = (view.ves.get(uid) for uid in view.placed_on.get(host, ()))
    return sum(held is not None and of_wish(held.value) is None for held in placed)
