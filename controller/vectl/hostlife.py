"""What the client asks of the life of hosts, and of the cluster's switches. All raise veapi.errors."""

from typing import TYPE_CHECKING

from veapi.v1 import hostlife_pb2, hostlife_pb2_grpc, types_pb2
from vectl import wire

if TYPE_CHECKING:
    from vectl.client import Client

REMOVE_S = 120.0


class HostLife:
    """One call each."""

    def __init__(self, client: "Client") -> None:
        self._context = client.context
        self._hosts = hostlife_pb2_grpc.HostLifeServiceStub(client.channel)
        self._switches = hostlife_pb2_grpc.SwitchServiceStub(client.channel)

    async def cordon(self, host: str, *, on: bool, reason: str = "") -> types_pb2.Host:
        request = hostlife_pb2.CordonHostRequest(host=host, cordoned=on, reason=reason)
        return await wire.unary(self._hosts.Cordon, request, context=self._context)

    async def remove(self, host: str, *, forget_ves: bool) -> int:
        """How many VEs are forgotten with it."""
        request = hostlife_pb2.RemoveHostRequest(host=host, forget_ves=forget_ves)
        response = await wire.unary(
            self._hosts.Remove, request, context=self._context, timeout_s=REMOVE_S
        )
        return response.ves

    async def add(self, host: str) -> None:
        request = hostlife_pb2.AddHostRequest(host=host)
        await wire.unary(self._hosts.Add, request, context=self._context)

    async def fence(self, host: str, *, powered_off: bool) -> types_pb2.Host:
        request = hostlife_pb2.FenceHostRequest(host=host, powered_off=powered_off)
        return await wire.unary(self._hosts.Fence, request, context=self._context)

    async def replace(self, host: str) -> types_pb2.Host:
        request = hostlife_pb2.ReplaceHostRequest(host=host)
        return await wire.unary(self._hosts.Replace, request, context=self._context)

    async def status(self) -> hostlife_pb2.SwitchStatus:
        request = hostlife_pb2.SwitchStatusRequest()
        return await wire.unary(self._switches.Status, request, context=self._context)

    async def disarm(self, for_s: float) -> hostlife_pb2.SwitchStatus:
        request = hostlife_pb2.DisarmRequest(for_s=for_s)
        return await wire.unary(self._switches.Disarm, request, context=self._context)

    async def arm(self) -> hostlife_pb2.SwitchStatus:
        request = hostlife_pb2.ArmRequest()
        return await wire.unary(self._switches.Arm, request, context=self._context)

    async def resume_moves(self, *, dry_run: bool) -> hostlife_pb2.ResumeMovesResponse:
        request = hostlife_pb2.ResumeMovesRequest(dry_run=dry_run)
        return await wire.unary(self._switches.ResumeMoves, request, context=self._context)
