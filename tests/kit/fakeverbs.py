# ruff: noqa: N802  # methods are named as the RPCs are
"""The fake controller's part for VEs that exist: set, rename, clone, rebuild, undelete, purge.

Requests are kept in `cluster.asked`. A set to 13 MiB of memory is what this fake's host can't do while the VE runs.
"""

import asyncio
from functools import partial
from typing import Any

from veapi.errors import Conflict, NotFound, VerackError
from veapi.rpc import abort
from veapi.v1 import api_pb2, types_pb2

REFUSED_BYTES = 13 << 20
STUCK = "stuck"
"""Name of a VE that this fake's host never removes."""


class Verbs:
    """Beside `cluster`, `_found`, `_make` and `_live` of the service."""

    cluster: Any
    _found: Any
    _make: Any
    _live: Any

    def keep(self, ve: types_pb2.VE) -> None:
        """As a deleted VE whose root is kept."""
        ve.delete_requested_at.GetCurrentTime()
        ve.purge_at.FromSeconds(ve.delete_requested_at.seconds + 86_400)
        ve.status.state, ve.status.disk_used_bytes = "Deleted", 5 << 20
        self.cluster.deleted[ve.uid] = ve

    def kept(self, request: Any) -> api_pb2.ListVEsResponse:
        found = [
            ve
            for ve in self.cluster.deleted.values()
            if not request.names or ve.name in request.names
        ]
        return api_pb2.ListVEsResponse(ves=found, revision=self.cluster.revision)

    async def Set(self, request: Any, context: Any) -> Any:
        self._note("Set", request)
        ve = await self._found(request.ve, context)
        for field in request.fields:
            if field != "env":
                _set(ve.spec, field, getattr(request.spec, field))
        ve.generation += 1
        if ve.spec.memory_bytes == REFUSED_BYTES and not request.restart:
            ve.status.observed_generation = ve.generation
            self.cluster.state(
                ve, "Running", reason="LimitsRefused", message="memory in use (20M) does not fit"
            )
        else:
            self._live(ve)
        return ve

    async def Rename(self, request: Any, context: Any) -> Any:
        self._note("Rename", request)
        ve = await self._found(request.ve, context)
        ve.name = request.name
        return ve

    async def Clone(self, request: Any, context: Any) -> Any:
        self._note("Clone", request)
        source = await self._found(request.source, context)
        wanted = types_pb2.VE()
        wanted.CopyFrom(request.ve)
        wanted.spec.image = source.spec.image
        try:
            return self._make(wanted)
        except VerackError as error:
            await abort(context, error)

    async def Rebuild(self, request: Any, context: Any) -> Any:
        self._note("Rebuild", request)
        ve = await self._found(request.ve, context)
        ve.spec.image = request.image or ve.spec.image
        ve.generation += 1
        self._live(ve)
        return ve

    async def Undelete(self, request: Any, context: Any) -> Any:
        self._note("Undelete", request)
        try:
            ve = self._one_kept(request.ve)
        except VerackError as error:
            await abort(context, error)
        del self.cluster.deleted[ve.uid]
        ve.name = request.name or ve.name
        ve.generation += 1
        ve.ClearField("purge_at")
        self.cluster.ves[ve.uid] = ve
        self.cluster.state(ve, "Creating")
        self._live(ve)
        return ve

    async def Purge(self, request: Any, context: Any) -> Any:
        self._note("Purge", request)
        try:
            ve = self._one_kept(request)
        except VerackError as error:
            await abort(context, error)
        ve.status.state = "Deleting"
        if ve.name != STUCK:
            gone = partial(self.cluster.deleted.pop, ve.uid, None)
            asyncio.get_running_loop().call_later(0.1, gone)
        return ve

    def _one_kept(self, ref: Any) -> types_pb2.VE:
        kept: dict[str, types_pb2.VE] = self.cluster.deleted
        found = [ve for ve in kept.values() if ref.uid in ("", ve.uid)]
        found = [ve for ve in found if ref.name in ("", ve.name)]
        if not found:
            raise NotFound("no such deleted VE is kept", hint="see `vectl list --deleted`")
        if len(found) > 1:
            raise Conflict("several deleted VEs have that name", hint="name it by its uid")
        return found[0]

    def _note(self, call: str, request: Any) -> None:
        self.cluster.calls.append(call)
        self.cluster.asked.append(request)


def _set(spec: Any, field: str, value: Any) -> None:
    """Of a number, a text or a list of texts."""
    if isinstance(value, int | float | str):
        setattr(spec, field, value)
    else:
        del getattr(spec, field)[:]
        getattr(spec, field).extend(value)
