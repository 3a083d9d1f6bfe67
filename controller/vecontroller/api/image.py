"""The service of images."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from collections.abc import AsyncIterator

from veapi import validate
from veapi.errors import Conflict
from veapi.model import Deleted, Digest, Image
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vecontroller.api.commits import ATTEMPTS, settle, worn_out
from vecontroller.api.describe import Describe, tags_of, users_of
from vecontroller.api.imports import import_image, pull_image
from vecontroller.api.inflight import InFlight
from vecontroller.api.lookup import find_image, listed
from vecontroller.api.ports import ApiDeps
from vecontroller.api.prefetch import set_prefetch
from vecontroller.calls import Context
from vecontroller.store import keys
from vecontroller.store.port import Delete, Guard
from vecontroller.view import Held, View
from vecontroller.writer import LostRace

MOST_TAGS = 90
"""Of one image, so that one transaction can remove all."""


class ImageService(api_pb2_grpc.ImageServiceServicer):
    def __init__(self, deps: ApiDeps, in_flight: InFlight) -> None:
        self._deps = deps
        self._in_flight = in_flight
        self._describe = Describe(deps)

    def Import(
        self, request_iterator: AsyncIterator[api_pb2.ImportImageRequest], context: Context
    ) -> AsyncIterator[api_pb2.ImportImageResponse]:
        return import_image(self._deps, self._describe, request_iterator)

    async def Get(self, request: api_pb2.ImageRef, context: Context) -> types_pb2.Image:
        ref = validate.image_ref("name", request.name)
        return self._describe.image(find_image(self._deps.mirror.view, ref))

    async def List(
        self, request: api_pb2.ListImagesRequest, context: Context
    ) -> api_pb2.ListImagesResponse:
        images = [self._describe.image(held) for held in self._deps.mirror.view.images.values()]
        images.sort(key=lambda image: (not image.tags, list(image.tags), image.digest))
        return api_pb2.ListImagesResponse(images=images)

    async def Delete(self, request: api_pb2.ImageRef, context: Context) -> types_pb2.Image:
        """Of a tag: only the tag while the image has others. The last one, or a digest: the image, if no VE uses it.

        Hosts let their copies go later: when they were not used for a while, or when their pool is short.
        """
        ref = validate.image_ref("name", request.name)
        for attempt in range(1, ATTEMPTS + 1):
            held = find_image(self._deps.mirror.view, ref)
            described = self._describe.image(held)
            try:
                await self._delete_once(ref, held)
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
            else:
                return described
        raise worn_out(f"image {ref}")

    def Pull(
        self, request: api_pb2.PullImageRequest, context: Context
    ) -> AsyncIterator[api_pb2.ImportImageResponse]:
        return pull_image(self._deps, self._describe, request)

    async def SetPrefetch(
        self, request: api_pb2.SetPrefetchRequest, context: Context
    ) -> types_pb2.Image:
        return self._describe.image(await set_prefetch(self._deps, request))

    async def _delete_once(self, ref: str, held: Held[Image]) -> None:
        view, digest = self._deps.mirror.view, held.value.digest
        tags = tags_of(view, digest)
        if ref in view.tags and len(tags) > 1:
            await self._untag(view, [ref], held, whole=False)
            return
        self._refuse_used(view, ref, digest)
        await self._untag(view, tags, held, whole=True)

    async def _untag(self, view: View, tags: list[str], held: Held[Image], *, whole: bool) -> None:
        """A tag that came meanwhile has changed the image, so the guard on it refuses."""
        image_key, tag_keys = keys.image(held.value.digest), [keys.image_tag(tag) for tag in tags]
        doomed = [*tag_keys, image_key] if whole else tag_keys
        guards = [
            Guard(key=key, mod_revision=view.tags[tag].mod_revision)
            for key, tag in zip(tag_keys, tags, strict=True)
        ]
        await self._deps.writer.commit(
            [*guards, Guard(key=image_key, mod_revision=held.mod_revision)],
            [Delete(key=key) for key in doomed],
            confirm=(doomed[-1], ""),
        )

    def _refuse_used(self, view: View, ref: str, digest: Digest) -> None:
        users = [f"{held.value.project}/{held.value.name}" for held in users_of(view, digest)]
        if users:
            raise Conflict(
                f"image {ref} is used by {len(users)} VEs: {listed(users)}",
                hint="delete them first",
            )
        kept = [held.value.ve for held in _kept_users_of(view, digest)]
        if kept:
            names = listed([f"{ve.project}/{ve.name}" for ve in kept])
            raise Conflict(
                f"image {ref} is used by {len(kept)} deleted VEs that are kept: {names}",
                hint=f"`vectl list --deleted -A` shows them; `vectl purge {kept[0].uid}` lets one go for good",
            )
        if self._in_flight.uses(digest):
            raise Conflict(
                f"image {ref} is used by a VE that is being created", hint="try again in a moment"
            )


def _kept_users_of(view: View, digest: Digest) -> list[Held[Deleted]]:
    """Deleted VEs that can come back, and were made of the image."""
    kept = (held for held in view.deleted.values() if not held.value.purging)
    return [held for held in kept if held.value.ve.image_digest == digest]
