"""VEs that a manifest asks for, as placement would see them: over what a world knows of those that there are."""

from collections.abc import Mapping, Sequence

import msgspec

from veapi import validate
from veapi.errors import InvalidInput, NotFound
from veapi.model import Digest, OnHostLoss, Spec, Uid
from veapi.v1 import api_pb2
from vecontroller.api import specs
from vecontroller.api.lookup import project_of, suggestion
from vecontroller.placement import Request, Rules
from vecontroller.placement.requests import is_fenced
from vecontroller.whatif import Known, World

_SIZES = ("cpu_millis", "memory_bytes", "disk_bytes", "pids")
_WISHES = ("require", "prefer", "tolerate", "near", "apart", "spread", "priority")


def asked_for(
    world: World, messages: Sequence[api_pb2.ApplyVERequest], rules: Rules
) -> tuple[tuple[Request, ...], dict[Uid, Known]]:
    """The VEs as they would be, and the names of those that are new. InvalidInput and NotFound as an apply would raise."""
    uids = {known: uid for uid, known in world.known.items()}
    held = {each.uid: each for row in world.hosts for each in row.tenants}
    held |= {each.uid: each for each in world.waiting}
    found: dict[Uid, Request] = {}
    new: dict[Uid, Known] = {}
    for number, message in enumerate(messages, start=1):
        known = _known(message)
        uid = uids.get(known)
        if uid in held:
            made = _over(held[uid], message)
        else:
            made = _new(world, message, known, number, rules)
            new[made.uid] = known
        if made.uid in found:
            raise InvalidInput(f"{known.name} is there twice", hint="name each VE once")
        found[made.uid] = made
    return tuple(found.values()), new


def new_uid(project: str, name: str) -> Uid:
    """Of a VE that is not there; no real one is like it."""
    return Uid(f"new/{project}/{name}")


def _known(message: api_pb2.ApplyVERequest) -> Known:
    return Known(
        project=project_of(message.ve.project), name=validate.name("name", message.ve.name)
    )


def _over(has: Request, message: api_pb2.ApplyVERequest) -> Request:
    """Image and host stay what they are: they can't be changed by an apply."""
    policy = OnHostLoss.RECREATE if has.fenced else OnHostLoss.STAY
    sizes = {field: getattr(has.resources, field) for field in _SIZES}
    base = Spec(image="any", on_host_loss=policy, **sizes)
    base = msgspec.structs.replace(base, **{field: getattr(has, field) for field in _WISHES})
    spec = specs.merged(message.ve.spec, base, fields=message.fields)
    labels = validate.labels("labels", message.ve.labels) or has.labels
    return msgspec.structs.replace(
        has, labels=labels, resources=spec.request, fenced=is_fenced(spec), **_wishes(spec)
    )


def _new(
    world: World, message: api_pb2.ApplyVERequest, known: Known, number: int, rules: Rules
) -> Request:
    spec = specs.merged(message.ve.spec, specs.DEFAULTS)
    plain = Request(
        uid=new_uid(known.project, known.name),
        resources=spec.request,
        host=spec.host,
        since=world.revision + number,
        project=known.project,
        labels=validate.labels("labels", message.ve.labels),
        image=_image(world, spec.image),
        strategy=rules.strategy_of(known.project),
        fenced=is_fenced(spec),
    )
    return msgspec.structs.replace(plain, **_wishes(spec))


def _wishes(spec: Spec) -> Mapping[str, object]:
    return {field: getattr(spec, field) for field in _WISHES}


def _image(world: World, ref: str) -> Digest:
    digest = world.images.get(ref)
    if digest is None and ref not in world.images.values():
        raise NotFound(
            f"no image {ref[:140]}",
            hint=suggestion(ref, world.images) or "see `vectl image list`",
        )
    return digest or Digest(ref)
