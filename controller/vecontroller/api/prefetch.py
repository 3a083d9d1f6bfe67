"""Asks for an image on hosts beside those that it is kept on. Kept with the image, so that hosts that come later get it too."""

import msgspec

from veapi import codec, validate
from veapi.errors import InvalidInput, NotFound
from veapi.model import Image, Prefetch
from veapi.selector import selector
from veapi.v1 import api_pb2
from vecontroller.api.commits import ATTEMPTS, settle, worn_out
from vecontroller.api.lookup import find_image, listed
from vecontroller.api.ports import ApiDeps
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held
from vecontroller.writer import LostRace

MOST_HOSTS = 256
_SELECTOR_LIMIT = 1024


async def set_prefetch(deps: ApiDeps, request: api_pb2.SetPrefetchRequest) -> Held[Image]:
    """NotFound for a host that nobody has heard of: a typing error would never be noticed."""
    ref = validate.image_ref("name", request.name)
    wanted = _checked(deps, codec.prefetch_in(request.prefetch))
    for attempt in range(1, ATTEMPTS + 1):
        held = find_image(deps.mirror.view, ref)
        if held.value.prefetch == wanted:
            return held
        try:
            return await _write(deps, held, wanted)
        except LostRace as lost:
            await settle(deps, lost, attempt)
    raise worn_out(f"image {ref}")


def _checked(deps: ApiDeps, wanted: Prefetch) -> Prefetch:
    validate.at_most("selector", wanted.selector, _SELECTOR_LIMIT)
    selector(wanted.selector)
    if len(wanted.hosts) > MOST_HOSTS:
        raise InvalidInput(
            f"hosts: {len(wanted.hosts)}; at most {MOST_HOSTS}", hint="use a selector of labels"
        )
    unknown = sorted(set(wanted.hosts) - set(deps.mirror.view.hosts))
    if unknown:
        raise NotFound(f"no host is called {listed(unknown)}", hint="see `vectl host list`")
    return msgspec.structs.replace(wanted, hosts=tuple(sorted(set(wanted.hosts))))


async def _write(deps: ApiDeps, held: Held[Image], wanted: Prefetch) -> Held[Image]:
    image = msgspec.structs.replace(held.value, prefetch=wanted, op_id=deps.ids.new())
    key = keys.image(image.digest)
    revision = await deps.writer.commit(
        [Guard(key=key, mod_revision=held.mod_revision)],
        [Put(key=key, value=values.encode_image(image))],
        confirm=(key, image.op_id),
    )
    return Held(value=image, mod_revision=revision, create_revision=held.create_revision)
