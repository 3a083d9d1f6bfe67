"""A watch that survives the loss of the controller.

The naive way ends with the stream, or goes on from its last revision, which the next controller may not know. Here
the stream is opened again without a revision: its snapshot is compared with what was seen before, and what vanished
meanwhile is told as deleted. So whoever reads sees one sequence without gaps (states in between may be missing).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import grpc.aio

from veapi.errors import Unavailable
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vectl.changes import Change, ChangeKind
from vectl.context import Context
from vectl.wire import failure

_REOPEN_S = 0.3
_REOPEN_TRIES = 200


class Known:
    """Folds the changes of one stream after the other into one sequence. Pure."""

    def __init__(self) -> None:
        self._ves: dict[str, types_pb2.VE] = {}
        self._in_snapshot: set[str] = set()
        self._synced = False

    def reopened(self) -> None:
        """A new stream begins with a snapshot."""
        self._in_snapshot = set()

    def fold(self, message: api_pb2.VEChange) -> list[Change]:
        match message.kind:
            case api_pb2.VEChange.KIND_SYNCED:
                return self._sync()
            case api_pb2.VEChange.KIND_DELETED:
                self._ves.pop(message.ve.uid, None)
                return [Change(ChangeKind.DELETED, message.ve)]
            case _:
                return self._seen(message.ve)

    def _sync(self) -> list[Change]:
        gone = [uid for uid in self._ves if uid not in self._in_snapshot]
        changes = [Change(ChangeKind.DELETED, self._ves.pop(uid)) for uid in gone]
        if not self._synced:
            self._synced = True
            changes.append(Change(ChangeKind.SYNCED, types_pb2.VE()))
        return changes

    def _seen(self, ve: types_pb2.VE) -> list[Change]:
        before = self._ves.get(ve.uid)
        self._ves[ve.uid] = ve
        self._in_snapshot.add(ve.uid)
        if before is None:
            return [Change(ChangeKind.ADDED, ve)]
        return [] if before == ve else [Change(ChangeKind.CHANGED, ve)]


class Watch:
    """An async iterator of changes. The stream is opened by the constructor, so that nothing after it is missed."""

    def __init__(
        self,
        stub: "api_pb2_grpc.VEServiceAsyncStub",
        request: api_pb2.WatchVEsRequest,
        context: Context,
        *,
        reconnect: Callable[[], Awaitable[None]],
    ) -> None:
        self._stub = stub
        self._request = request
        self._context = context
        self._reconnect = reconnect
        self._known = Known()
        self._call = stub.Watch(request)
        self._changes = self._run()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call.cancel()
        await self._changes.aclose()

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._changes

    async def snapshot(self) -> dict[str, types_pb2.VE]:
        """Reads up to the end of the first snapshot; its VEs by uid."""
        found: dict[str, types_pb2.VE] = {}
        async for change in self._changes:
            if change.kind is ChangeKind.SYNCED:
                break
            found[change.ve.uid] = change.ve
        return found

    async def _run(self) -> AsyncGenerator[Change, None]:
        tries = 0
        while tries < _REOPEN_TRIES:
            try:
                async for message in self._call:
                    tries = 0
                    for change in self._known.fold(message):
                        yield change
            except grpc.aio.AioRpcError as error:
                meant = failure(error, self._context)
                if not isinstance(meant, Unavailable):
                    raise meant from None
            tries += 1
            await self._reopen()
        raise Unavailable(
            f"the controller at {self._context.endpoint} ends every watch",
            hint="look at its log",
        )

    async def _reopen(self) -> None:
        await asyncio.sleep(_REOPEN_S)
        with suppress(Unavailable):  # the next try of the loop meets it again
            await self._reconnect()
        self._known.reopened()
        self._call = self._stub.Watch(self._request)
