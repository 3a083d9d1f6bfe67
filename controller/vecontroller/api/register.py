"""All of the API on a server. `Api.run` must run while it serves."""

import grpc.aio

from veapi.v1 import api_pb2_grpc, scheduler_pb2_grpc, simulate_pb2_grpc
from vecontroller.api.departed import Departed
from vecontroller.api.host import HostService
from vecontroller.api.image import ImageService
from vecontroller.api.inflight import InFlight
from vecontroller.api.orphan import OrphanService
from vecontroller.api.ports import ApiDeps
from vecontroller.api.project import ProjectService
from vecontroller.api.scheduling import SchedulerService
from vecontroller.api.simulation import SimulationService
from vecontroller.api.system import SystemService
from vecontroller.api.ve import VEService


class Api:
    """What the services share."""

    def __init__(self, departed: Departed) -> None:
        self._departed = departed

    async def run(self) -> None:
        """For ever: remembers which VEs went, for watches from earlier revisions."""
        await self._departed.run()


def register(server: grpc.aio.Server, deps: ApiDeps) -> Api:
    """Adds the services for users. The server needs `GuardInterceptor`; no service checks its callers by itself."""
    in_flight, departed = InFlight(deps.clock), Departed(deps)
    api_pb2_grpc.add_VEServiceServicer_to_server(VEService(deps, in_flight, departed), server)
    api_pb2_grpc.add_HostServiceServicer_to_server(HostService(deps), server)
    api_pb2_grpc.add_ImageServiceServicer_to_server(ImageService(deps, in_flight), server)
    api_pb2_grpc.add_ProjectServiceServicer_to_server(ProjectService(deps), server)
    api_pb2_grpc.add_OrphanServiceServicer_to_server(OrphanService(deps, in_flight), server)
    scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(SchedulerService(deps), server)
    simulate_pb2_grpc.add_SimulationServiceServicer_to_server(SimulationService(deps), server)
    api_pb2_grpc.add_SystemServiceServicer_to_server(SystemService(deps), server)
    return Api(departed)
