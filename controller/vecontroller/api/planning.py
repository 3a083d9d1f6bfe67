"""The service of plans: what an apply would do, host by host, and doing exactly that."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from veapi.errors import VerackError
from veapi.v1 import plan_pb2, plan_pb2_grpc
from vecontroller.api.apply import Applier
from vecontroller.api.aside import Aside, world_now
from vecontroller.api.create import Creator
from vecontroller.api.describe import Describe, stamp
from vecontroller.api.inflight import InFlight
from vecontroller.api.planapplying import (
    PlanApplier,
    refuse_if_moved_on,
    refuse_without_room,
    whole,
)
from vecontroller.api.planmaking import VERSION, PlanMaker, placed
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context

AT_ONCE = 4


class PlanService(plan_pb2_grpc.PlanServiceServicer):
    def __init__(self, deps: ApiDeps, in_flight: InFlight) -> None:
        self._deps = deps
        self._aside = Aside("plans", at_once=AT_ONCE)
        describe, creator = Describe(deps), Creator(deps, in_flight)
        applier = Applier(deps, creator, describe, in_flight)
        self._maker = PlanMaker(deps, applier)
        self._applier = PlanApplier(deps, applier, creator, describe)

    async def Make(self, request: plan_pb2.MakePlanRequest, context: Context) -> plan_pb2.Plan:
        deps = self._deps
        ves = await self._maker.judged(request.apply)
        world = world_now(deps)
        await self._aside.run(lambda: placed(world, ves, deps.rules))
        return plan_pb2.Plan(
            version=VERSION,
            cluster=deps.cluster,
            revision=world.revision,
            made_at=stamp(deps.clock.wall()),
            ves=ves,
        )

    async def Apply(
        self, request: plan_pb2.ApplyPlanRequest, context: Context
    ) -> plan_pb2.ApplyPlanResponse:
        deps, ves = self._deps, request.plan.ves
        whole(request.plan, deps.cluster)
        refuse_if_moved_on(deps.mirror.view, ves)
        world = world_now(deps)
        await self._aside.run(lambda: refuse_without_room(world, ves, deps.rules))
        refuse_if_moved_on(deps.mirror.view, ves)
        answer = plan_pb2.ApplyPlanResponse()
        for planned in ves:
            try:
                answer.done.append(await self._applier.carry_out(planned))
            except VerackError as error:
                if not answer.done:
                    raise
                answer.failed, answer.hint = f"{planned.name}: {error.message}", error.hint
                answer.kind = error.kind
                break
        return answer
