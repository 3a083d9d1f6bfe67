"""Clone: a new VE whose root is made of that of another, or of one of its snapshots, on the same host.

It is a create: a name, an address and a spec of its own. What it takes of a host it can only take of the one that holds
the source; the scheduler says so when there is too little.
"""

import msgspec

from veapi import validate
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import VE, Digest, RootWish, SnapshotStatus, Spec, VEState
from veapi.v1 import api_pb2
from vecontroller.api import specs
from vecontroller.api.change import refuse_deleting
from vecontroller.api.create import REQUEST_ID_LIMIT, Creator, Origin, Wanted
from vecontroller.api.lookup import find_host, find_ve, project_of, suggestion
from vecontroller.api.ports import ApiDeps
from vecontroller.snapshotting import image_of, image_ref
from vecontroller.store import keys
from vecontroller.store.port import Guard
from vecontroller.view import Held, View

_ROOTLESS = (VEState.PENDING, VEState.CREATING)


async def clone(deps: ApiDeps, creator: Creator, request: api_pb2.CloneVERequest) -> Held[VE]:
    """The new VE. NotFound: source, snapshot, project. Conflict: the source has no root yet, or the name is taken."""
    name = validate.name("ve.name", request.ve.name)
    project = project_of(request.ve.project or request.source.project)
    request_id = validate.at_most("request_id", request.request_id, REQUEST_ID_LIMIT)
    labels = validate.labels("ve.labels", request.ve.labels)
    if request.ve.spec.image:
        raise InvalidInput(
            "spec.image: a clone is made of its source",
            hint="`vectl rebuild` gives it another root",
        )

    def make() -> Wanted:
        view = deps.mirror.view
        source = find_ve(view, request.source)
        refuse_deleting(source.value)
        _refuse_rootless(view, source.value)
        digest = source.value.image_digest
        if request.snapshot:
            digest = image_of(_there(view, source.value, request.snapshot), source.value)
        spec = _spec(view, source.value, request)
        return Wanted(
            project=project,
            name=name,
            labels=labels,
            spec=msgspec.structs.replace(spec, image=image_ref(view, spec.image, digest)),
            request_id=request_id,
            origin=_origin(source, request.snapshot, digest),
        )

    earlier = creator.earlier(project, name, request_id)
    return earlier or await creator.create_as(make)


def _origin(source: Held[VE], snapshot: str, digest: Digest) -> Origin:
    """A source that changes meanwhile is looked at again: it may be on its way out."""
    ve = source.value
    return Origin(
        root=RootWish(from_uid=ve.uid, snapshot=snapshot),
        image_digest=digest,
        guard=Guard(key=keys.ve_spec(ve.uid), mod_revision=source.mod_revision),
    )


def _spec(view: View, source: VE, request: api_pb2.CloneVERequest) -> Spec:
    """The source's, with what is asked in its place; never its address."""
    asked = request.ve.spec
    spec = specs.merged(asked, msgspec.structs.replace(source.spec, ip=""), fields=request.fields)
    host = view.placements[source.uid].value.host
    if asked.host and find_host(view, asked.host) and asked.host != host:
        raise Conflict(
            f"spec.host: a clone of {source.name} can only be where that is: on {host}",
            hint="leave the host out",
        )
    return spec


def _refuse_rootless(view: View, source: VE) -> None:
    status = view.statuses.get(source.uid)
    placed = source.uid in view.placements
    if not placed or status is None or status.value.state in _ROOTLESS:
        raise Conflict(
            f"VE {source.name} has no root yet that could be cloned",
            hint=f"wait until it has: `vectl wait {source.name} --for state=Running`",
        )


def _there(view: View, source: VE, tag: str) -> SnapshotStatus:
    """A snapshot must be there, as its host says, and not on its way out. The newest of that tag."""
    leaving = {wish.tag for wish in source.snapshots if wish.deleting}
    there = [each for each in _taken(view, source) if each.tag not in leaving]
    good = [each for each in there if each.tag == tag and not each.error]
    if good:
        return max(good, key=lambda each: each.seq)
    failed = next((each.error for each in there if each.tag == tag), "")
    if failed or any(wish.tag == tag and not wish.deleting for wish in source.snapshots):
        raise Conflict(
            f"snapshot {tag} of VE {source.name} is not there: {failed or 'it is being taken'}",
            hint=f"see `vectl snapshot list {source.name}`",
        )
    raise NotFound(
        f"VE {source.name} has no snapshot {tag[:80]}",
        hint=suggestion(tag, [each.tag for each in there])
        or f"see `vectl snapshot list {source.name}`",
    )


def _taken(view: View, source: VE) -> tuple[SnapshotStatus, ...]:
    status = view.statuses.get(source.uid)
    return status.value.snapshots if status is not None else ()
