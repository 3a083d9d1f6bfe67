"""Writes an image and its tag in one transaction, once a host holds all of it. A tag is never moved to another image."""

from veapi import validate
from veapi.errors import Conflict
from veapi.model import Digest, HeldImage, Image, Prefetch
from vecontroller import claims
from vecontroller.api.commits import ATTEMPTS, settle, worn_out
from vecontroller.api.ports import ApiDeps
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held
from vecontroller.writer import LostRace


async def record(deps: ApiDeps, tag: str, done: HeldImage) -> Held[Image]:
    """Image and tag in one transaction. Conflict when the tag is of another image."""
    validate.digest("digest", done.digest)
    claims.check_image_config(done.config)
    for attempt in range(1, ATTEMPTS + 1):
        view = deps.mirror.view
        known, tagged = view.images.get(done.digest), view.tags.get(tag)
        if tagged is not None and tagged.value != done.digest:
            raise _tag_taken(tag, tagged.value)
        if tagged is not None and known is not None:
            return known
        try:
            return await _write(deps, tag, _image(deps, done, known), known)
        except LostRace as lost:
            await settle(deps, lost, attempt)
    raise worn_out(f"image {tag}")


def _image(deps: ApiDeps, done: HeldImage, known: Held[Image] | None) -> Image:
    """An image that is known keeps its blob, which is what other hosts hold, and what was asked for it."""
    return Image(
        digest=done.digest,
        blob_digest=known.value.blob_digest if known else done.blob_digest,
        size_bytes=done.size_bytes,
        blob_bytes=known.value.blob_bytes if known else done.blob_bytes,
        created_at=known.value.created_at if known else deps.clock.wall(),
        config=known.value.config if known else done.config,
        prefetch=known.value.prefetch if known else Prefetch(),
        op_id=deps.ids.new(),
    )


async def _write(deps: ApiDeps, tag: str, image: Image, known: Held[Image] | None) -> Held[Image]:
    """The image is written also when it is known, so that a delete at the same time loses."""
    image_key, tag_key = keys.image(image.digest), keys.image_tag(tag)
    revision = await deps.writer.commit(
        [
            Guard(key=image_key, mod_revision=known.mod_revision if known else 0),
            Guard(key=tag_key, mod_revision=0),
        ],
        [
            Put(key=image_key, value=values.encode_image(image)),
            Put(key=tag_key, value=values.encode_ref(image.digest, image.op_id)),
        ],
        confirm=(tag_key, image.op_id),
    )
    created = known.create_revision if known else revision
    return Held(value=image, mod_revision=revision, create_revision=created)


def _tag_taken(tag: str, digest: Digest) -> Conflict:
    return Conflict(
        f"image {tag} is another one already: {digest}",
        hint=f"delete it first (vectl image delete {tag}), or choose another name",
    )
