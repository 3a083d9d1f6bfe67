"""All of the API on a server. `Api.run` must run while it serves."""

import grpc.aio

from veapi.daemon import forever
from veapi.groups import TaskGroup
from veapi.v1 import (
    api_pb2_grpc,
    cluster_pb2_grpc,
    group_pb2_grpc,
    hostlife_pb2_grpc,
    plan_pb2_grpc,
    scheduler_pb2_grpc,
    simulate_pb2_grpc,
)
from vecontroller.api.cluster import ClusterService
from vecontroller.api.create import Creator
from vecontroller.api.departed import Departed
from vecontroller.api.group import GroupService
from vecontroller.api.host import HostService
from vecontroller.api.hostlife import HostLifeService
from vecontroller.api.image import ImageService
from vecontroller.api.inflight import InFlight
from vecontroller.api.orphan import OrphanService
from vecontroller.api.planning import PlanService
from vecontroller.api.ports import ApiDeps
from vecontroller.api.project import ProjectService
from vecontroller.api.scheduling import SchedulerService
from vecontroller.api.simulation import SimulationService
from vecontroller.api.switches import SwitchService
from vecontroller.api.system import SystemService
from vecontroller.api.ve import VEService
from vecontroller.groups.keeper import Keeper
from vecontroller.switching import Switching


class Api:
    """What the services share."""

    def __init__(self, departed: Departed, keeper: Keeper, switching: Switching) -> None:
        self.keeper = keeper
        self._switching = switching
        self._departed = departed

    async def run(self) -> None:
        """For ever: remembers which VEs went, for watches from earlier revisions, keeps the groups, and ends a disarming."""
        async with TaskGroup() as group:
            group.create_task(forever("departed", self._departed.run()))
            group.create_task(forever("groups", self.keeper.run()))
            group.create_task(forever("switching", self._switching.run()))


def register(server: grpc.aio.Server, deps: ApiDeps) -> Api:
    """Adds the services for users. The server needs `GuardInterceptor`; no service checks its callers by itself."""
    in_flight, departed = InFlight(deps.clock), Departed(deps)
    api_pb2_grpc.add_VEServiceServicer_to_server(VEService(deps, in_flight, departed), server)
    api_pb2_grpc.add_HostServiceServicer_to_server(HostService(deps), server)
    api_pb2_grpc.add_ImageServiceServicer_to_server(ImageService(deps, in_flight), server)
    api_pb2_grpc.add_ProjectServiceServicer_to_server(ProjectService(deps), server)
    api_pb2_grpc.add_OrphanServiceServicer_to_server(OrphanService(deps, in_flight), server)
    scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(SchedulerService(deps), server)
    plan_pb2_grpc.add_PlanServiceServicer_to_server(PlanService(deps, in_flight), server)
    simulate_pb2_grpc.add_SimulationServiceServicer_to_server(SimulationService(deps), server)
    api_pb2_grpc.add_SystemServiceServicer_to_server(SystemService(deps), server)
    keeper = Keeper(deps, in_flight, Creator(deps, in_flight))
    group_pb2_grpc.add_GroupServiceServicer_to_server(GroupService(deps, keeper), server)
    hostlife_pb2_grpc.add_HostLifeServiceServicer_to_server(HostLifeService(deps), server)
    hostlife_pb2_grpc.add_SwitchServiceServicer_to_server(SwitchService(deps), server)
    cluster_pb2_grpc.add_ClusterServiceServicer_to_server(ClusterService(deps), server)
    switching = Switching(
        *(deps.mirror, deps.writer, deps.clock),
        state=deps.hosts.host_state,
        new_op_id=deps.ids.new,
    )
    return Api(departed, keeper, switching)
