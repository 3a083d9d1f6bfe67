"""The service of plans: what an apply would do, host by host, and doing exactly that."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

import asyncio
from collections.abc import Callable
from typing import TypeVar

from veapi.errors import Conflict, VerackError
from veapi.v1 import plan_pb2, plan_pb2_grpc
from vecontroller.api.apply import Applier
from vecontroller.api.create import Creator
from vecontroller.api.describe import Describe
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
from vecontroller.whatif import World, world_of

T = TypeVar("T")
AT_ONCE = 4
"""Each holds a copy of the cluster and, for a while, a thread."""


class PlanService(plan_pb2_grpc.PlanServiceServicer):
    def __init__(self, deps: ApiDeps, in_flight: InFlight) -> None:
        self._deps = deps
        self._running = 0
        describe, creator = Describe(deps), Creator(deps, in_flight)
        applier = Applier(deps, creator, describe, in_flight)
        self._maker = PlanMaker(deps, applier)
        self._applier = PlanApplier(deps, applier, creator, describe)

    async def Make(self, request: plan_pb2.MakePlanRequest, context: Context) -> plan_pb2.Plan:
        deps = self._deps
        ves = await self._maker.judged(request.apply)
        world = self._world()
        await self._apart(lambda: placed(world, ves, deps.rules))
        plan = plan_pb2.Plan(
            version=VERSION, cluster=deps.cluster, revision=world.revision, ves=ves
        )
        plan.made_at.FromNanoseconds(int(deps.clock.wall() * 1e9))
        return plan

    async def Apply(
        self, request: plan_pb2.ApplyPlanRequest, context: Context
    ) -> plan_pb2.ApplyPlanResponse:
        deps, ves = self._deps, request.plan.ves
        whole(request.plan, deps.cluster)
        refuse_if_moved_on(deps.mirror.view, ves)
        world = self._world()
        await self._apart(lambda: refuse_without_room(world, ves, deps.rules))
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

    def _world(self) -> World:
        deps = self._deps
        return world_of(deps.mirror.view, deps.scheduler.board().hosts, deps.rules)

    async def _apart(self, work: Callable[[], T]) -> T:
        """In a thread."""
        if self._running >= AT_ONCE:
            raise Conflict(f"{self._running} plans are under way", hint="try again in some seconds")
        self._running += 1
        try:
            return await asyncio.to_thread(work)
        finally:
            self._running -= 1
