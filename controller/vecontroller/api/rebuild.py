"""Rebuild: a VE gets a new root from an image; uid, name, address and snapshots stay. What ran is stopped for it and started again."""

import msgspec

from veapi import validate
from veapi.model import VE, Image, RootWish
from veapi.v1 import api_pb2
from vecontroller.api.change import refuse_deleting, refuse_member, stop_timeout_s
from vecontroller.api.commits import Edit, edit
from vecontroller.api.inflight import InFlight
from vecontroller.api.lookup import find_image
from vecontroller.api.ports import ApiDeps
from vecontroller.store import keys
from vecontroller.store.port import Guard
from vecontroller.view import Held, View


async def rebuild(
    deps: ApiDeps, in_flight: InFlight, request: api_pb2.RebuildVERequest
) -> Held[VE]:
    """Each call makes the root anew. NotFound: the image."""
    timeout_s = stop_timeout_s(request.stop_timeout_s)
    if request.image:
        validate.image_ref("image", request.image)

    def change(ve: VE) -> VE | Edit:
        refuse_deleting(ve)
        name = request.image or ve.spec.image
        if name != ve.spec.image:
            refuse_member(ve)
        image = find_image(deps.mirror.view, name)
        guard = Guard(key=keys.image(image.value.digest), mod_revision=image.mod_revision)
        return Edit(
            msgspec.structs.replace(
                _of_image(deps.mirror.view, ve, name, image.value), stop_timeout_s=timeout_s
            ),
            guards=(guard,),
            holds=(in_flight.holding("", image.value.digest),),
        )

    held, _ = await edit(deps, request.ve, change)
    return held


def next_root_seq(view: View, ve: VE) -> int:
    """Its host's number counts too: a store may have been set back to an older one, and would ask for what was done before."""
    held = view.statuses.get(ve.uid)
    return 1 + max(ve.root.seq, held.value.observed_root_seq if held is not None else 0)


def _of_image(view: View, ve: VE, name: str, image: Image) -> VE:
    return msgspec.structs.replace(
        ve,
        spec=msgspec.structs.replace(ve.spec, image=name),
        image_digest=image.digest,
        root=RootWish(seq=next_root_seq(view, ve)),
        generation=ve.generation + 1,
    )
