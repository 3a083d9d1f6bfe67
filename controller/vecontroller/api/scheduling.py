"""The service that tells what the scheduler sees: why a VE goes where it goes, or why nowhere."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from veapi import codec
from veapi.errors import InvalidInput
from veapi.model import VE, Uid
from veapi.v1 import scheduler_pb2, scheduler_pb2_grpc
from vecontroller.api.create import wanted
from vecontroller.api.lookup import find_host, find_image, find_project, find_ve
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context
from vecontroller.decisions import request as request_of
from vecontroller.placement import Explanation, Request, Verdict, explain
from vecontroller.view import Held

_NEW = Uid("new")


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

    def _of_new(self, request: scheduler_pb2.ExplainRequest) -> scheduler_pb2.Explanation:
        view, asked = self._deps.mirror.view, wanted(request.spec, "")
        find_project(view, asked.project)
        find_image(view, asked.spec.image)
        if asked.spec.host:
            find_host(view, asked.spec.host)
        made = Request(uid=_NEW, resources=asked.spec.request, host=asked.spec.host)
        found = explain(self._deps.scheduler.board(), made)
        return _message(asked.project, asked.name, found)

    def _of_held(self, held: Held[VE]) -> scheduler_pb2.Explanation:
        """Of one that has a host: as if it had none, so that its own host has its room."""
        view, ve = self._deps.mirror.view, held.value
        board, made = self._deps.scheduler.board(), request_of(view, held)
        placement = view.placements.get(ve.uid)
        if placement is not None and placement.value.host in board.index:
            board.give_back(board.index[placement.value.host], made)
        message = _message(ve.project, ve.name, explain(board, made))
        if placement is not None:
            message.placement.CopyFrom(codec.placement_out(placement.value))
        return message


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
