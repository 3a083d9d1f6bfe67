"""What the client asks of the scheduler."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veapi.v1 import scheduler_pb2, types_pb2
from vectl import wire
from vectl.verbs import Verbs
from vectl.wanted import Wanted

if TYPE_CHECKING:
    from veapi.v1 import scheduler_pb2_grpc

CAPACITY_S = 120.0


class Scheduling(Verbs):
    """One call each. All raise veapi.errors."""

    scheduler_stub: "scheduler_pb2_grpc.SchedulerServiceAsyncStub"

    async def explain(self, name: str) -> scheduler_pb2.Explanation:
        """What every host says to a VE."""
        return await self._explain(scheduler_pb2.ExplainRequest(ve=self.ref(name)))

    async def explain_new(self, wanted: Wanted) -> scheduler_pb2.Explanation:
        """The same of one as it would be created."""
        return await self._explain(scheduler_pb2.ExplainRequest(spec=self._message(wanted)))

    async def capacity(
        self, flavors: Sequence[types_pb2.Resources] = ()
    ) -> scheduler_pb2.CapacityResponse:
        """How many more fit; what is 0 in a flavor takes the default of a new VE."""
        request = scheduler_pb2.CapacityRequest(flavors=flavors)
        return await wire.unary(
            self.scheduler_stub.Capacity, request, context=self.context, timeout_s=CAPACITY_S
        )

    async def taint_host(
        self, host: str, add: Sequence[str], remove: Sequence[str]
    ) -> types_pb2.Host:
        """`remove` are keys. NotFound when there is no such host."""
        request = scheduler_pb2.TaintHostRequest(host=host, add=add, remove=remove)
        return await wire.unary(self.scheduler_stub.TaintHost, request, context=self.context)

    async def _explain(self, request: scheduler_pb2.ExplainRequest) -> scheduler_pb2.Explanation:
        return await wire.unary(self.scheduler_stub.Explain, request, context=self.context)
