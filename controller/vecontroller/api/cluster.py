"""The service of the cluster's store as a whole: its backup, and the word that a restored one counts."""
# ruff: noqa: N802 - names of RPCs

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import structlog

from veapi import codec
from veapi.channel import caller
from veapi.errors import Conflict
from veapi.v1 import cluster_pb2, cluster_pb2_grpc
from vecontroller.api.confirming import Confirming
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context

log = structlog.get_logger()


class ClusterService(cluster_pb2_grpc.ClusterServiceServicer):
    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._busy = False
        self._confirming = Confirming(deps)

    async def Confirm(
        self, request: cluster_pb2.ConfirmRequest, context: Context
    ) -> cluster_pb2.ConfirmResponse:
        """What is done, or would be. Conflict while hosts are not heard of."""
        would = self._confirming.preview()
        if not request.dry_run and not would.confirmed:
            await self._confirming.confirm(request.incarnation, request.without)
            by = caller(context, self._deps.cluster).name
            log.warning("restored store confirmed", incarnation=request.incarnation, by=by)
        return would

    async def Backup(
        self, request: cluster_pb2.BackupRequest, context: Context
    ) -> AsyncIterator[cluster_pb2.BackupResponse]:
        """One at a time: each keeps etcd's disk busy. Conflict while another is under way."""
        del request
        if self._busy:
            raise Conflict("another backup is being taken", hint="try again when it is done")
        self._busy = True
        try:
            async with aclosing(self._frames()) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._busy = False
        log.info("backup taken", by=caller(context, self._deps.cluster).name)

    async def _frames(self) -> AsyncGenerator[cluster_pb2.BackupResponse, None]:
        # What our view shows is in the store already: a snapshot that begins now has it.
        yield cluster_pb2.BackupResponse(start=self._start())
        size, digest = 0, hashlib.sha256()
        async with aclosing(self._deps.snapshot()) as pieces:
            async for piece in pieces:
                size += len(piece)
                digest.update(piece)
                yield cluster_pb2.BackupResponse(chunk=piece)
        end = cluster_pb2.BackupEnd(size_bytes=size, sha256=digest.hexdigest())
        yield cluster_pb2.BackupResponse(end=end)

    def _start(self) -> cluster_pb2.BackupStart:
        deps = self._deps
        return cluster_pb2.BackupStart(
            cluster=deps.cluster,
            incarnation=deps.leader.incarnation,
            revision=deps.mirror.view.revision,
            taken_at=codec.to_timestamp(deps.clock.wall()),
            version=deps.version,
        )
