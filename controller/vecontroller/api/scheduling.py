"""The service that tells what the scheduler sees: why a VE goes where it goes, or why nowhere."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

import asyncio
from collections.abc import Iterable

import msgspec

from veapi import codec
from veapi.errors import InvalidInput
from veapi.model import VE, Digest, Resources, Uid
from veapi.v1 import scheduler_pb2, scheduler_pb2_grpc, types_pb2
from vecontroller.api import specs
from vecontroller.api.create import Wanted, wanted
from vecontroller.api.describe import Describe
from vecontroller.api.lookup import find_host, find_image, find_project, find_ve
from vecontroller.api.ports import ApiDeps
from vecontroller.api.taint import taint
from vecontroller.calls import Context
from vecontroller.placement import Capacity, Explanation, Loss, Verdict, capacity, explain
from vecontroller.placement import request as request_of
from vecontroller.placement.capacity import HOST, RACK
from vecontroller.view import Held, View

FLAVORS_LIMIT = 100
_NEW = Uid("new")
_ANY = msgspec.structs.replace(specs.DEFAULTS, image="any")


class SchedulerService(scheduler_pb2_grpc.SchedulerServiceServicer):
    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps

    async def Explain(
        self, request: scheduler_pb2.ExplainRequest, context: Context
    ) -> scheduler_pb2.Explanation:
        if request.HasField("ve") == request.HasField("spec"):
            raise InvalidInput("ve: give either a VE or a spec", hint="name a VE, or send a spec")
        if request.HasField("spec"):
            return self._of_new(request)
        return self._of_held(find_ve(self._deps.mirror.view, request.ve))

    async def Capacity(
        self, request: scheduler_pb2.CapacityRequest, context: Context
    ) -> scheduler_pb2.CapacityResponse:
        """In a thread: with thousands of hosts it takes seconds."""
        board, sizes = self._deps.scheduler.board(), _sizes(request.flavors)
        found = await asyncio.to_thread(capacity, board, sizes)
        view = self._deps.mirror.view
        return scheduler_pb2.CapacityResponse(
            hosts=len(board.hosts),
            hosts_able=int(board.able.sum()),
            losses=[_loss(view, loss) for loss in found.losses if loss.stranded],
            flavors=[
                scheduler_pb2.FlavorCapacity(
                    resources=codec.resources_out(flavor.resources),
                    now=flavor.now,
                    after_host=_left(found, HOST, index),
                    after_rack=_left(found, RACK, index),
                    stopped_by=[
                        scheduler_pb2.Stop(resource=resource, hosts=hosts)
                        for resource, hosts in flavor.stopped_by
                    ],
                )
                for index, flavor in enumerate(found.flavors)
            ],
        )

    async def TaintHost(
        self, request: scheduler_pb2.TaintHostRequest, context: Context
    ) -> types_pb2.Host:
        name = await taint(self._deps, request)
        return Describe(self._deps).host(name, find_host(self._deps.mirror.view, name))

    def _of_new(self, request: scheduler_pb2.ExplainRequest) -> scheduler_pb2.Explanation:
        view, asked = self._deps.mirror.view, wanted(request.spec, "")
        find_project(view, asked.project)
        image = find_image(view, asked.spec.image)
        if asked.spec.host:
            find_host(view, asked.spec.host)
        made = request_of(view, Held(_proposed(asked, image.value.digest), 0, 0), self._deps.rules)
        found = explain(self._deps.scheduler.board(), made)
        return _message(asked.project, asked.name, found)

    def _of_held(self, held: Held[VE]) -> scheduler_pb2.Explanation:
        """Of one that has a host: as if it had none, so that its own host has its room."""
        view, ve = self._deps.mirror.view, held.value
        board, made = self._deps.scheduler.board(), request_of(view, held, self._deps.rules)
        placement = view.placements.get(ve.uid)
        if placement is not None and placement.value.host in board.index:
            board.give_back(board.index[placement.value.host], made)
        message = _message(ve.project, ve.name, explain(board, made))
        if placement is not None:
            message.placement.CopyFrom(codec.placement_out(placement.value))
        return message


def _proposed(asked: Wanted, digest: Digest) -> VE:
    """A VE that is not there, as the scheduler would see it."""
    return VE(
        uid=_NEW,
        name=asked.name,
        project=asked.project,
        labels=asked.labels,
        generation=1,
        spec=asked.spec,
        created_at=0.0,
        image_digest=digest,
    )


def _message(project: str, name: str, found: Explanation) -> scheduler_pb2.Explanation:
    refusal = found.refusal
    return scheduler_pb2.Explanation(
        name=name,
        project=project,
        verdicts=[_verdict(each) for each in found.verdicts],
        refusal=refusal.message if refusal is not None else "",
        hint=refusal.hint if refusal is not None else "",
        changes=found.changes,
    )


def _verdict(verdict: Verdict) -> scheduler_pb2.HostVerdict:
    return scheduler_pb2.HostVerdict(
        host=verdict.host,
        rack=verdict.rack,
        rank=verdict.rank,
        failing=[
            scheduler_pb2.FailingCheck(check=each.check, why=each.why, change=each.change)
            for each in verdict.failing
        ],
        score=[
            scheduler_pb2.ScorePart(name=part.name, value=part.value, text=part.text)
            for part in verdict.parts
        ],
    )


def _loss(view: View, loss: Loss) -> scheduler_pb2.Loss:
    message = scheduler_pb2.Loss(kind=loss.kind, name=loss.name, ves=loss.ves)
    for refusal in loss.stranded:
        held = view.ves.get(refusal.uid)
        message.stranded.add(
            uid=refusal.uid,
            name=held.value.name if held is not None else "",
            project=held.value.project if held is not None else "",
            why=refusal.message,
        )
    return message


def _left(found: Capacity, kind: str, flavor: int) -> scheduler_pb2.Left | None:
    worst = found.worst(kind, flavor)
    if worst is None:
        return None
    return scheduler_pb2.Left(name=worst.name, more=worst.more[flavor])


def _sizes(messages: Iterable[types_pb2.Resources]) -> list[Resources]:
    """With the defaults of a new VE where nothing is given. InvalidInput names the field."""
    found = [
        specs.merged(
            types_pb2.VESpec(
                cpu=each.cpu,
                memory_bytes=each.memory_bytes,
                disk_bytes=each.disk_bytes,
                pids=each.pids,
            ),
            _ANY,
        ).request
        for each in messages
    ]
    if len(found) > FLAVORS_LIMIT:
        raise InvalidInput(f"flavors: {len(found)}; at most {FLAVORS_LIMIT}", hint="ask twice")
    return found or [_ANY.request]
