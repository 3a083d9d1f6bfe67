"""Creates VEs: name, address and spec in one transaction, guarded by what must still be true of project and image."""

from collections.abc import Callable, Mapping, Sequence

from veapi import validate
from veapi.model import VE, Cluster, Digest, Image, Network, RootWish, Spec, Uid, Value
from veapi.v1 import types_pb2
from vecontroller import allowance, quota
from vecontroller.api import addresses, specs
from vecontroller.api.commits import ATTEMPTS, encoded, settle, worn_out
from vecontroller.api.inflight import InFlight
from vecontroller.api.lookup import find_host, find_image, find_project, project_of, refuse_taken
from vecontroller.api.ports import ApiDeps
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held, View
from vecontroller.writer import LostRace

REQUEST_ID_LIMIT = 128


class Origin(Value, frozen=True, kw_only=True):
    """What a clone is made of. `guard`: of what must not change until it is written."""

    root: RootWish
    image_digest: Digest
    guard: Guard


class Membership(Value, frozen=True, kw_only=True):
    """Of a VE that a group makes. `image_digest`: what it is made of while there is such an image; `guard`: of the group."""

    group: str
    revision: int
    image_digest: Digest
    guard: Guard


class Wanted(Value, frozen=True, kw_only=True):
    """A new VE as it was asked for, checked. `request_id` is the client's, or empty.

    `origin`: of a clone; else it is made of the image that the spec names.
    """

    project: str
    name: str
    labels: Mapping[str, str]
    spec: Spec
    request_id: str = ""
    origin: Origin | None = None
    member: Membership | None = None
    planned_host: str = ""


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

        NotFound: project, image or host. Conflict: name or address is taken, or the project's quota is used up.
        """
        return await self.create_as(lambda: asked)

    async def create_as(self, make: Callable[[], Wanted]) -> Held[VE]:
        """As `create`, of what `make` gives at each try."""
        for attempt in range(1, ATTEMPTS + 1):
            asked = make()
            earlier = self.earlier(asked.project, asked.name, asked.request_id)
            if earlier is not None:
                return earlier
            ve = self.proposal(asked)
            guards = [each.guard for each in (asked.origin, asked.member) if each is not None]
            try:
                with (
                    self._deps.reserved.asking(ve.project, quota.of_ve(ve)),
                    self._in_flight.holding(ve.ip, ve.image_digest, ve.root.from_uid),
                ):
                    return await self._commit(ve, guards)
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
        raise worn_out("what the new VE needs")

    def proposal(self, asked: Wanted) -> VE:
        """The VE as it would be created now; nothing is written. Raises as `create`."""
        view = self._deps.mirror.view
        refuse_taken(view, asked.project, asked.name)
        find_project(view, asked.project)
        image = _image(view, asked) if asked.origin is None else None
        if asked.spec.host:
            find_host(view, asked.spec.host)
        ip = addresses.choose(view, network_of(view), asked.spec.ip, self._in_flight.addresses())
        ve = self._ve(asked, image, ip)
        encoded(ve)  # refuses what is too large
        allowance.refuse_more(view, self._deps.reserved, ve.project, quota.of_ve(ve))
        return ve

    def earlier(self, project: str, name: str, request_id: str) -> Held[VE] | None:
        """What this request made when it came before."""
        view = self._deps.mirror.view
        uid = view.names.get((project, name))
        held = view.ves.get(uid.value) if uid is not None and request_id else None
        if held is None or held.value.request_id != request_id:
            return None
        return held if held.value.delete_requested_at is None else None

    def _ve(self, asked: Wanted, image: Held[Image] | None, ip: str) -> VE:
        origin = asked.origin
        digest = image.value.digest if image is not None else Digest("")
        return VE(
            uid=Uid(self._deps.ids.new()),
            name=asked.name,
            project=asked.project,
            labels=asked.labels,
            generation=1,
            spec=asked.spec,
            created_at=self._deps.clock.wall(),
            policy_generation=1,
            image_digest=origin.image_digest if origin is not None else digest,
            root=origin.root if origin is not None else RootWish(),
            ip=ip,
            mac=addresses.mac_of(ip),
            op_id=self._deps.ids.new(),
            request_id=asked.request_id,
            planned_host=asked.planned_host,
            group=asked.member.group if asked.member is not None else "",
            group_revision=asked.member.revision if asked.member is not None else 0,
        )

    async def _commit(self, ve: VE, guards: Sequence[Guard]) -> Held[VE]:
        view, spec_key = self._deps.mirror.view, keys.ve_spec(ve.uid)
        name_key = keys.ve_name(ve.project, ve.name)
        address_key = keys.address(network_of(view).name, ve.ip)
        project, image = view.projects[ve.project], view.images.get(ve.image_digest)
        if not ve.root.from_uid and image is not None:
            image_key = keys.image(ve.image_digest)
            guards = [*guards, Guard(key=image_key, mod_revision=image.mod_revision)]
        revision = await self._deps.writer.commit(
            [
                Guard(key=spec_key, mod_revision=0),
                Guard(key=name_key, mod_revision=0),
                Guard(key=address_key, mod_revision=0),
                Guard(key=keys.project(ve.project), mod_revision=project.mod_revision),
                *guards,
            ],
            [
                Put(key=spec_key, value=encoded(ve)),
                Put(key=name_key, value=values.encode_ref(ve.uid, ve.op_id)),
                Put(key=address_key, value=values.encode_ref(ve.uid, ve.op_id)),
            ],
            confirm=(spec_key, ve.op_id),
        )
        return Held(value=ve, mod_revision=revision, create_revision=revision)


def _image(view: View, asked: Wanted) -> Held[Image]:
    """All VEs of a revision are made of one image, wherever its tag points by now."""
    pinned = asked.member.image_digest if asked.member is not None else Digest("")
    return view.images.get(pinned) or find_image(view, asked.spec.image)


def network_of(view: View) -> Network:
    """The cluster's one network."""
    cluster = view.cluster.value if view.cluster is not None else Cluster(name="")
    return cluster.network
