"""Creates VEs: name, address and spec in one transaction, guarded by what must still be true of project and image."""

from collections.abc import Mapping

from veapi import validate
from veapi.errors import Conflict
from veapi.model import VE, Cluster, Digest, Network, Spec, Uid, Value
from veapi.v1 import types_pb2
from vecontroller.api import addresses, specs
from vecontroller.api.commits import ATTEMPTS, encoded, settle, worn_out
from vecontroller.api.inflight import InFlight
from vecontroller.api.lookup import find_host, find_image, find_project, project_of
from vecontroller.api.ports import ApiDeps
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held, View
from vecontroller.writer import LostRace

REQUEST_ID_LIMIT = 128


class Wanted(Value, frozen=True, kw_only=True):
    """A new VE as it was asked for, checked. `request_id` is the client's, or empty."""

    project: str
    name: str
    labels: Mapping[str, str]
    spec: Spec
    request_id: str = ""


def wanted(message: types_pb2.VE, request_id: str) -> Wanted:
    """InvalidInput names the field."""
    return Wanted(
        project=project_of(message.project),
        name=validate.name("name", message.name),
        labels=validate.labels("labels", message.labels),
        spec=specs.merged(message.spec, specs.DEFAULTS),
        request_id=validate.at_most("request_id", request_id, REQUEST_ID_LIMIT),
    )


class Creator:
    """Owns what is in flight. All creates of this controller go through one of it."""

    def __init__(self, deps: ApiDeps, in_flight: InFlight) -> None:
        self._deps = deps
        self._in_flight = in_flight

    async def create(self, asked: Wanted) -> Held[VE]:
        """The new VE; the one that an earlier, equal request made, if this repeats it.

        NotFound: project, image or host. Conflict: name or address is taken.
        """
        for attempt in range(1, ATTEMPTS + 1):
            earlier = self._earlier(asked)
            if earlier is not None:
                return earlier
            ve = self.proposal(asked)
            try:
                with self._in_flight.holding(ve.ip, ve.image_digest):
                    return await self._commit(ve)
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
        raise worn_out(f"what VE {asked.name} needs")

    def proposal(self, asked: Wanted) -> VE:
        """The VE as it would be created now; nothing is written. Raises as `create`."""
        view = self._deps.mirror.view
        _refuse_taken(view, asked)
        find_project(view, asked.project)
        image = find_image(view, asked.spec.image)
        if asked.spec.host:
            find_host(view, asked.spec.host)
        ip = addresses.choose(view, network_of(view), asked.spec.ip, self._in_flight.addresses())
        ve = self._ve(asked, image.value.digest, ip)
        encoded(ve)  # refuses what is too large
        return ve

    def _earlier(self, asked: Wanted) -> Held[VE] | None:
        view = self._deps.mirror.view
        uid = view.names.get((asked.project, asked.name))
        held = view.ves.get(uid.value) if uid is not None and asked.request_id else None
        if held is None or held.value.request_id != asked.request_id:
            return None
        return held if held.value.delete_requested_at is None else None

    def _ve(self, asked: Wanted, digest: Digest, ip: str) -> VE:
        return VE(
            uid=Uid(self._deps.ids.new()),
            name=asked.name,
            project=asked.project,
            labels=asked.labels,
            generation=1,
            spec=asked.spec,
            created_at=self._deps.clock.wall(),
            image_digest=digest,
            ip=ip,
            mac=addresses.mac_of(ip),
            op_id=self._deps.ids.new(),
            request_id=asked.request_id,
        )

    async def _commit(self, ve: VE) -> Held[VE]:
        view, spec_key = self._deps.mirror.view, keys.ve_spec(ve.uid)
        name_key = keys.ve_name(ve.project, ve.name)
        address_key = keys.address(network_of(view).name, ve.ip)
        project, image = view.projects[ve.project], view.images[ve.image_digest]
        revision = await self._deps.writer.commit(
            [
                Guard(key=spec_key, mod_revision=0),
                Guard(key=name_key, mod_revision=0),
                Guard(key=address_key, mod_revision=0),
                Guard(key=keys.project(ve.project), mod_revision=project.mod_revision),
                Guard(key=keys.image(ve.image_digest), mod_revision=image.mod_revision),
            ],
            [
                Put(key=spec_key, value=encoded(ve)),
                Put(key=name_key, value=values.encode_ref(ve.uid, ve.op_id)),
                Put(key=address_key, value=values.encode_ref(ve.uid, ve.op_id)),
            ],
            confirm=(spec_key, ve.op_id),
        )
        return Held(value=ve, mod_revision=revision, create_revision=revision)


def network_of(view: View) -> Network:
    """The cluster's one network."""
    cluster = view.cluster.value if view.cluster is not None else Cluster(name="")
    return cluster.network


def _refuse_taken(view: View, asked: Wanted) -> None:
    held = view.names.get((asked.project, asked.name))
    if held is None:
        return
    ve = view.ves.get(held.value)
    if ve is not None and ve.value.delete_requested_at is not None:
        raise Conflict(
            f"name {asked.name} is still held in project {asked.project} by VE {held.value}, which is being deleted",
            hint=f"wait until it is gone, or choose another name; see `vectl show {asked.name}`",
        )
    raise Conflict(
        f"name {asked.name} is taken in project {asked.project} by VE {held.value}",
        hint="choose another name, or change that VE with `vectl apply`",
    )
