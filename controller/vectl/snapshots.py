"""What the client asks about snapshots of VEs and about orphans, and how it waits for a snapshot."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from veapi.errors import Conflict, RemoteFailed, TimedOut
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vectl import wire
from vectl.changes import Change, ChangeKind
from vectl.context import Context

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import Snapshot

VE = types_pb2.VE


class Snapshots:
    """One call each. All raise veapi.errors; names are of the context's project."""

    context: Context
    ves: "api_pb2_grpc.VEServiceAsyncStub"
    orphan_stub: "api_pb2_grpc.OrphanServiceAsyncStub"

    async def take_snapshot(self, name: str, tag: str = "") -> VE:
        """The VE with the new one last. Conflict: the tag is taken, or there is no root yet."""
        return await wire.unary(self.ves.TakeSnapshot, self._of(name, tag), context=self.context)

    async def delete_snapshot(self, name: str, tag: str) -> VE:
        return await wire.unary(self.ves.DeleteSnapshot, self._of(name, tag), context=self.context)

    async def restore(self, name: str, tag: str) -> VE:
        """Its root becomes what it was. Conflict: it was not taken (yet)."""
        return await wire.unary(self.ves.Restore, self._of(name, tag), context=self.context)

    async def orphans(self, host: str = "") -> list[api_pb2.Orphan]:
        request = api_pb2.ListOrphansRequest(host=host)
        answer = await wire.unary(self.orphan_stub.List, request, context=self.context)
        return list(answer.orphans)

    async def adopt_orphan(self, uid: str, *, host: str = "", name: str = "") -> VE:
        """`uid`: or the name that it had. Conflict: its name is taken, or its host has no record of it."""
        request = api_pb2.AdoptOrphanRequest(
            orphan=api_pb2.OrphanRef(uid=uid, host=host), name=name
        )
        return await wire.unary(self.orphan_stub.Adopt, request, context=self.context)

    async def purge_orphan(self, uid: str, *, host: str = "") -> api_pb2.Orphan:
        request = api_pb2.OrphanRef(uid=uid, host=host)
        return await wire.unary(self.orphan_stub.Purge, request, context=self.context)

    def _of(self, name: str, tag: str) -> api_pb2.SnapshotRef:
        ref = api_pb2.VERef(project=self.context.project, name=name)
        return api_pb2.SnapshotRef(ve=ref, tag=tag)


async def until_taken(
    changes: AsyncIterator[Change], asked: VE, seq: int, *, timeout_s: float
) -> "Snapshot":
    """The snapshot, once its host has it. RemoteFailed says why it could not be taken."""
    async for snapshot in _looks(changes, asked, seq, timeout_s, "taken"):
        if snapshot is None:
            raise Conflict("the snapshot was deleted meanwhile", hint="somebody else did")
        if snapshot.state == "Failed":
            raise RemoteFailed(
                f"snapshot {snapshot.tag} could not be taken: {snapshot.message}",
                hint="make room in the VE or raise its disk limit, then take another one",
            )
        if snapshot.state == "Ready":
            return snapshot
    raise AssertionError("a watch ends by an error only")


async def until_gone(
    changes: AsyncIterator[Change], asked: VE, seq: int, *, timeout_s: float
) -> None:
    """Once its host has it no more. Why it could not be taken once is no reason why it can't be deleted."""
    known = next((each.message for each in asked.snapshots if each.seq == seq), "")
    async for snapshot in _looks(changes, asked, seq, timeout_s, "deleted"):
        if snapshot is None:
            return
        if snapshot.message not in ("", known):
            raise RemoteFailed(
                f"snapshot {snapshot.tag} could not be deleted: {snapshot.message}",
                hint="its host tries again; see `vectl snapshot list`",
            )


async def _looks(
    changes: AsyncIterator[Change], asked: VE, seq: int, timeout_s: float, what: str
) -> "AsyncIterator[Snapshot | None]":
    """The snapshot as each change since `asked` shows it; None: it is gone."""
    try:
        async with asyncio.timeout(timeout_s):
            async for change in changes:
                if change.kind is ChangeKind.SYNCED or change.ve.uid != asked.uid:
                    continue
                if change.ve.resource_version < asked.resource_version:
                    continue  # of before it was asked for
                if change.kind is ChangeKind.DELETED:
                    raise Conflict(
                        f"VE {change.ve.name} was deleted meanwhile", hint="see `vectl list`"
                    )
                yield next((each for each in change.ve.snapshots if each.seq == seq), None)
    except TimeoutError:
        raise TimedOut(
            f"the snapshot was not {what} within {timeout_s:g} s",
            hint="the request stands; see `vectl snapshot list`, or give a longer --timeout",
        ) from None
