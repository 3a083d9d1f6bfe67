"""A VE's console over a stream: one person at a time. Who comes later is refused, or takes it over."""

import asyncio

from veagent.execute import ReaderGone, converse
from veagent.pipe import Pipe
from veagent.ports import Instance, Runtime
from veapi.errors import Conflict
from veapi.model import Uid
from veapi.v1 import api_pb2

TAKEN_WITHIN_S = 5.0


class _Holder:
    def __init__(self) -> None:
        self.taken = asyncio.Event()
        self.left = asyncio.Event()


class Consoles:
    """Who is at which console of this host."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._holders: dict[Uid, _Holder] = {}

    async def serve(self, pipe: Pipe, instance: Instance | None, start: api_pb2.ExecStart) -> None:
        """Until the person leaves or the VE ends. Conflict: it does not run, or somebody is there, or took it over."""
        if instance is None:
            raise Conflict("the VE does not run", hint="start it first")
        if start.force:
            await self._free(instance.uid)
        elif instance.uid in self._holders:
            raise _occupied()
        self._holders[instance.uid] = holder = _Holder()
        try:
            await self._attached(pipe, instance, start, holder)
        finally:
            del self._holders[instance.uid]
            holder.left.set()

    async def _free(self, uid: Uid) -> None:
        holder = self._holders.get(uid)
        if holder is None:
            return
        holder.taken.set()
        try:
            async with asyncio.timeout(TAKEN_WITHIN_S):
                await holder.left.wait()
        except TimeoutError:
            raise _occupied() from None
        if uid in self._holders:
            raise _occupied()

    async def _attached(
        self, pipe: Pipe, instance: Instance, start: api_pb2.ExecStart, holder: _Holder
    ) -> None:
        size = start.window
        process = await self._runtime.attach_console(
            instance, columns=size.columns or 80, rows=size.rows or 24
        )
        try:
            await converse(pipe, process, stop=holder.taken)
        except ReaderGone:
            if holder.taken.is_set():
                raise Conflict(
                    "the console was taken over by somebody else", hint="take it back with --force"
                ) from None
        finally:
            await process.close()


def _occupied() -> Conflict:
    return Conflict(
        "somebody is at this VE's console already",
        hint="--force takes it over; `vectl logs -f` only looks",
    )
