"""The service that thinks changes through: on the cluster as it is, or on a view that somebody carried away."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from collections.abc import Mapping

from veapi import codec
from veapi.channel import MESSAGE_LIMIT_BYTES
from veapi.errors import InvalidInput
from veapi.model import HostName, Uid
from veapi.v1 import simulate_pb2, simulate_pb2_grpc
from vecontroller.api import savedview
from vecontroller.api.aside import Aside, world_now
from vecontroller.api.describe import stamp
from vecontroller.api.imagined import asked_for
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context
from vecontroller.placement import Rules
from vecontroller.whatif import (
    AddedHosts,
    Changes,
    Fate,
    HostChange,
    Known,
    Outcome,
    World,
    simulate,
)

AT_ONCE = 2


class SimulationService(simulate_pb2_grpc.SimulationServiceServicer):
    """The view is frozen in the loop; what takes long is done in a thread, of a few at once."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._aside = Aside("simulations", at_once=AT_ONCE)

    async def SaveView(
        self, request: simulate_pb2.SaveViewRequest, context: Context
    ) -> simulate_pb2.SavedView:
        world = world_now(self._deps)
        view = await self._aside.run(lambda: savedview.saved(world))
        if view.ByteSize() > MESSAGE_LIMIT_BYTES:
            raise InvalidInput(
                f"view: it takes {view.ByteSize()} bytes; at most {MESSAGE_LIMIT_BYTES}",
                hint="the cluster is too large to be carried away; simulate on the live one",
            )
        view.cluster = self._deps.cluster
        view.saved_at.CopyFrom(stamp(self._deps.clock.wall()))
        return view

    async def Simulate(
        self, request: simulate_pb2.SimulateRequest, context: Context
    ) -> simulate_pb2.Simulation:
        live = None if request.HasField("view") else world_now(self._deps)
        return await self._aside.run(lambda: _simulated(live, request, self._deps.rules))


def _simulated(
    live: World | None, request: simulate_pb2.SimulateRequest, rules: Rules
) -> simulate_pb2.Simulation:
    world = savedview.world_in(request.view) if live is None else live
    asked, new = asked_for(world, request.apply, rules)
    changes = Changes(
        remove_hosts=tuple(request.remove_hosts),
        remove_racks=tuple(request.remove_racks),
        add=tuple(
            AddedHosts(count=each.count, like=HostName(each.like), rack=each.rack)
            for each in request.add
        ),
        apply=asked,
    )
    return _message(simulate(world, changes), {**world.known, **new})


def _message(outcome: Outcome, known: Mapping[Uid, Known]) -> simulate_pb2.Simulation:
    return simulate_pb2.Simulation(
        ves=[_ve(fate, known[fate.uid]) for fate in outcome.fates],
        hosts=[_host(change) for change in outcome.hosts],
    )


def _ve(fate: Fate, known: Known) -> simulate_pb2.SimulatedVE:
    refusal = fate.refusal
    return simulate_pb2.SimulatedVE(
        project=known.project,
        name=known.name,
        why=fate.change.value,
        from_host=fate.was_on,
        to_host=fate.host,
        message=refusal.message if refusal is not None else fate.message,
        hint=refusal.hint if refusal is not None else "",
    )


def _host(change: HostChange) -> simulate_pb2.SimulatedHost:
    return simulate_pb2.SimulatedHost(
        name=change.name,
        rack=change.rack,
        change=change.change,
        able=change.able,
        room=codec.resources_out(change.room),
        committed_before=codec.resources_out(change.before),
        committed_after=codec.resources_out(change.after),
        ves_before=change.ves_before,
        ves_after=change.ves_after,
    )
