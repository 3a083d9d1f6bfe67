"""What the client asks to be thought through, and plans of what is to be done."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veapi.v1 import api_pb2, plan_pb2, simulate_pb2
from vectl import wire
from vectl.verbs import Verbs
from vectl.wanted import Wanted, wire_names

if TYPE_CHECKING:
    from veapi.v1 import plan_pb2_grpc, simulate_pb2_grpc

SIMULATION_S = 120.0
APPLY_S = 600.0
"""A plan is applied one VE after the other."""


class Simulations(Verbs):
    """One call each. All raise veapi.errors; nothing is written but by `apply_plan`."""

    plan_stub: "plan_pb2_grpc.PlanServiceAsyncStub"
    simulation_stub: "simulate_pb2_grpc.SimulationServiceAsyncStub"

    async def save_view(self) -> simulate_pb2.SavedView:
        """Hosts, VEs and placements, to be carried away."""
        return await wire.unary(
            self.simulation_stub.SaveView,
            simulate_pb2.SaveViewRequest(),
            context=self.context,
            timeout_s=SIMULATION_S,
        )

    async def simulate(
        self, request: simulate_pb2.SimulateRequest, apply: Sequence[Wanted] = ()
    ) -> simulate_pb2.Simulation:
        """`apply` is added to the request. NotFound: a host, rack or image that is not there."""
        request.apply.extend(self._applied(each) for each in apply)
        return await wire.unary(
            self.simulation_stub.Simulate,
            request,
            context=self.context,
            timeout_s=SIMULATION_S,
        )

    async def plan(self, wanted: Sequence[Wanted]) -> plan_pb2.Plan:
        """What an apply would do, host by host."""
        request = plan_pb2.MakePlanRequest(apply=[self._applied(each) for each in wanted])
        return await wire.unary(
            self.plan_stub.Make, request, context=self.context, timeout_s=SIMULATION_S
        )

    async def apply_plan(self, plan: plan_pb2.Plan) -> plan_pb2.ApplyPlanResponse:
        """Does what it says. Conflict, with nothing done: the cluster has moved on."""
        request = plan_pb2.ApplyPlanRequest(plan=plan)
        return await wire.unary(
            self.plan_stub.Apply, request, context=self.context, timeout_s=APPLY_S
        )

    def _applied(self, wanted: Wanted) -> api_pb2.ApplyVERequest:
        return api_pb2.ApplyVERequest(ve=self._message(wanted), fields=wire_names(wanted.given))
