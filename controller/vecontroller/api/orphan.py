"""The service of orphans: what hosts have and nobody's set names. They are kept until a person adopts or purges them."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

import msgspec

from veapi import codec, validate
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import (
    VE,
    Deleted,
    HostName,
    Placement,
    Run,
    SetEntry,
    Spec,
    Uid,
    VEReport,
)
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vecontroller import allowance, quota
from vecontroller.api import addresses
from vecontroller.api.commits import encoded
from vecontroller.api.create import network_of
from vecontroller.api.describe import Describe
from vecontroller.api.inflight import InFlight
from vecontroller.api.lookup import find_project, project_of, refuse_taken, suggestion
from vecontroller.api.ports import DEFAULT_PROJECT, ApiDeps
from vecontroller.api.room import room_for
from vecontroller.calls import Context
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held

_UNKNOWN = Spec(image="unknown", cpu_millis=0, memory_bytes=0, disk_bytes=0, pids=0)
"""Of a VE that is only there to be purged and of which its host has no record."""


class OrphanService(api_pb2_grpc.OrphanServiceServicer):
    def __init__(self, deps: ApiDeps, in_flight: InFlight) -> None:
        self._deps = deps
        self._in_flight = in_flight
        self._describe = Describe(deps)

    async def List(
        self, request: api_pb2.ListOrphansRequest, context: Context
    ) -> api_pb2.ListOrphansResponse:
        hosts = [HostName(request.host)] if request.host else sorted(self._deps.mirror.view.hosts)
        if request.host and request.host not in self._deps.mirror.view.hosts:
            raise NotFound(f"no host {request.host[:80]}", hint="see `vectl host list`")
        return api_pb2.ListOrphansResponse(
            orphans=[
                _described(host, report)
                for host in hosts
                for report in sorted(self._of(host), key=lambda each: each.uid)
            ]
        )

    async def Adopt(self, request: api_pb2.AdoptOrphanRequest, context: Context) -> types_pb2.VE:
        """It goes on as it is: its host is told what it was told last, and so has nothing to do."""
        host, report = self._find(request.orphan)
        self._refuse_known(report.uid)
        if report.entry is None:
            raise Conflict(
                f"host {host} has no record of orphan {report.uid}, so nobody knows what it was",
                hint=f"purge it: `vectl orphan purge {report.uid}`; or look at its root on the host first",
            )
        if report.entry.uid != report.uid:
            raise Conflict(
                f"host {host} tells of orphan {report.uid} what is of {report.entry.uid[:80]}",
                hint=f"look at that host's veagent, or purge it: `vectl orphan purge {report.uid}`",
            )
        ve, placement = self._revived(host, report, report.entry, request)
        what, view = f"for orphan {ve.name}", self._deps.mirror.view
        with (
            allowance.allowed(view, self._deps.reserved, ve.project, quota.of_ve(ve)),
            room_for(self._deps, host, ve.spec.request, what=what),
            self._in_flight.holding(ve.ip, ve.image_digest),
        ):
            return self._describe.ve(await self._commit(ve, placement), events=True)

    async def Purge(self, request: api_pb2.OrphanRef, context: Context) -> api_pb2.Orphan:
        """Its host removes it as it does a deleted VE whose time has come."""
        host, report = self._find(request)
        self._refuse_known(report.uid)
        now = self._deps.clock.wall()
        op_id = self._deps.ids.new()
        deleted = Deleted(
            ve=_to_purge(report, now),
            placement=Placement(host=host, generation=_generation(report), decided_at=now),
            deleted_at=now,
            purge_at=now,
            purging=True,
            op_id=op_id,
        )
        key = keys.ve_deleted(report.uid)
        await self._deps.writer.commit(
            [Guard(key=key, mod_revision=0), Guard(key=keys.ve_spec(report.uid), mod_revision=0)],
            [Put(key=key, value=values.encode_deleted(deleted))],
            confirm=(key, op_id),
        )
        return _described(host, report)

    def _of(self, host: HostName) -> tuple[VEReport, ...]:
        return self._deps.orphans.orphans(host)

    def _find(self, ref: api_pb2.OrphanRef) -> tuple[HostName, VEReport]:
        """By uid, or by the name it had last. Conflict when several are meant."""
        if not ref.uid:
            raise InvalidInput("orphan.uid: is empty", hint="give the uid of an orphan")
        hosts = [HostName(ref.host)] if ref.host else sorted(self._deps.mirror.view.hosts)
        there = [(host, report) for host in hosts for report in self._of(host)]
        found = [each for each in there if ref.uid in (each[1].uid, each[1].name)]
        if not found:
            names = [report.name for _, report in there if report.name]
            raise NotFound(
                f"no orphan {ref.uid[:80]}" + (f" on host {ref.host[:80]}" if ref.host else ""),
                hint=suggestion(ref.uid, names) or "see `vectl orphan list`",
            )
        if len(found) > 1:
            where = ", ".join(f"{report.uid} on {host}" for host, report in found[:5])
            raise Conflict(
                f"{len(found)} orphans are meant by {ref.uid}: {where}",
                hint="name one by its uid and --host",
            )
        return found[0]

    def _refuse_known(self, uid: Uid) -> None:
        """What is a VE of the cluster elsewhere must not be one twice."""
        view = self._deps.mirror.view
        held = view.ves.get(uid)
        if held is not None:
            raise Conflict(
                f"orphan {uid} is what VE {held.value.name} left behind on this host",
                hint=f"see `vectl show {held.value.name}`; delete that first if this one is to stay",
            )
        if uid in view.deleted:
            raise Conflict(
                f"VE {uid} was deleted and is kept",
                hint=f"`vectl undelete {uid}`, or `vectl purge {uid}`",
            )

    def _revived(
        self,
        host: HostName,
        report: VEReport,
        entry: SetEntry,
        request: api_pb2.AdoptOrphanRequest,
    ) -> tuple[VE, Placement]:
        view, now = self._deps.mirror.view, self._deps.clock.wall()
        project = project_of(request.project or entry.project or DEFAULT_PROJECT)
        name = validate.name("name", request.name or entry.name)
        find_project(view, project)
        refuse_taken(view, project, name)
        ip = self._address(entry.ip)
        op_id = self._deps.ids.new()
        ve = VE(
            uid=entry.uid,
            name=name,
            project=project,
            labels=validate.labels("labels", entry.labels),
            generation=max(1, entry.generation),
            spec=validate.spec(msgspec.structs.replace(entry.spec, ip="", host="")),
            created_at=now,
            restart_seq=entry.restart_seq,
            stop_timeout_s=validate.stop_timeout_s("stop_timeout", entry.stop_timeout_s) or 30.0,
            image_digest=validate.digest("image_digest", entry.image_digest),
            ip=ip,
            mac=addresses.mac_of(ip),
            root=entry.root,
            policy_generation=entry.policy_generation,
            snapshots=entry.snapshots,
            snapshot_seq=max(
                (report.status.observed_snapshot_seq, *(wish.seq for wish in entry.snapshots))
            ),
            op_id=op_id,
        )
        placement = Placement(
            host=host,
            generation=_generation(report),
            decided_at=now,
            message="it was found here and adopted",
            op_id=op_id,
        )
        return ve, placement

    def _address(self, ip: str) -> str:
        """Its own when that is free; else another one, which it gets at its next start."""
        view, coming = self._deps.mirror.view, self._in_flight.addresses()
        try:
            return addresses.choose(view, network_of(view), ip, coming)
        except (Conflict, InvalidInput):
            return addresses.choose(view, network_of(view), "", coming)

    async def _commit(self, ve: VE, placement: Placement) -> Held[VE]:
        view = self._deps.mirror.view
        spec_key, name_key = keys.ve_spec(ve.uid), keys.ve_name(ve.project, ve.name)
        address_key = keys.address(network_of(view).name, ve.ip)
        placement_key, project_key = keys.ve_placement(ve.uid), keys.project(ve.project)
        new = (spec_key, name_key, address_key, placement_key, keys.ve_deleted(ve.uid))
        project = Guard(key=project_key, mod_revision=view.projects[ve.project].mod_revision)
        revision = await self._deps.writer.commit(
            [project, *(Guard(key=key, mod_revision=0) for key in new)],
            [
                Put(key=spec_key, value=encoded(ve)),
                Put(key=name_key, value=values.encode_ref(ve.uid, ve.op_id)),
                Put(key=address_key, value=values.encode_ref(ve.uid, ve.op_id)),
                Put(key=placement_key, value=values.encode_placement(placement)),
            ],
            confirm=(spec_key, ve.op_id),
        )
        return Held(value=ve, mod_revision=revision, create_revision=revision)


def _generation(report: VEReport) -> int:
    """Not below its host's: an end of an earlier stay is refused there."""
    asked = report.entry.placement_generation if report.entry is not None else 0
    return max(1, asked, report.status.placement_generation)


def _to_purge(report: VEReport, now: float) -> VE:
    """Enough of a VE for its host to remove it."""
    entry = report.entry
    spec = entry.spec if entry is not None else _UNKNOWN
    return VE(
        uid=report.uid,
        name=report.name or report.uid,
        project=report.project or DEFAULT_PROJECT,
        labels={},
        generation=1,
        spec=msgspec.structs.replace(spec, run=Run.STOPPED),
        created_at=now,
        delete_requested_at=now,
        purge=True,
    )


def _described(host: HostName, report: VEReport) -> api_pb2.Orphan:
    entry = report.entry
    return api_pb2.Orphan(
        uid=report.uid,
        host=host,
        name=report.name,
        project=report.project,
        status=codec.status_out(report.status),
        spec=codec.spec_out(entry.spec) if entry is not None else None,
    )
