# ruff: noqa: N802  # methods are named as the RPCs are
"""The scheduler of the fake controller: it knows two hosts, of which h2 is full. A VE `huge` fits nowhere."""

from typing import Any

from kit.fakecluster import FakeCluster
from veapi.v1 import scheduler_pb2, scheduler_pb2_grpc, types_pb2

LACKS = scheduler_pb2.FailingCheck(
    check="memory",
    why="free 1G of 16G, wanted 2G: 1G too little",
    change="free 1G of memory on h2",
)


class Scheduling(scheduler_pb2_grpc.SchedulerServiceServicer):
    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    async def Capacity(self, request: Any, context: Any) -> Any:
        self.cluster.asked.append(request)
        found = scheduler_pb2.CapacityResponse(hosts=2, hosts_able=2)
        flavor = found.flavors.add(
            now=40, resources=request.flavors[0] if request.flavors else None
        )
        flavor.after_host.CopyFrom(scheduler_pb2.Left(name="h1", more=20))
        flavor.after_rack.CopyFrom(scheduler_pb2.Left(name="r1", more=10))
        flavor.stopped_by.add(resource="memory", hosts=2)
        if request.flavors:
            loss = found.losses.add(kind="host", name="h1", ves=3)
            loss.stranded.add(uid="u", name="db", project="default", why="1 host: 1 silent")
        return found

    async def TaintHost(self, request: Any, context: Any) -> Any:
        self.cluster.asked.append(request)
        return types_pb2.Host(name=request.host, taints=request.add)

    async def Explain(self, request: Any, context: Any) -> Any:
        self.cluster.asked.append(request)
        name = request.ve.name or request.spec.name
        found = scheduler_pb2.Explanation(name=name, project="default")
        if name == "huge":
            found.refusal, found.hint = "2 hosts: 2 too little memory", "ask for less"
            found.changes.append("free 1G of memory on h2")
        else:
            found.verdicts.add(host="h1", rack="r1", rank=1).score.add(
                name="share", value=1, text="12.5% of its memory committed then"
            )
        if request.HasField("ve") and name != "huge":
            found.placement.CopyFrom(types_pb2.Placement(host="h1", message="the only one"))
        found.verdicts.add(host="h2", rack="r2", failing=[LACKS])
        return found
