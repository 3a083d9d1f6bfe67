"""A VE as a revision of its group's template wants it: pure but for the view. What can change live is changed live."""

import msgspec

from veapi.model import VE, Image, Revision, RootWish, Spec
from vecontroller.api.change import is_up, restarted
from vecontroller.api.lookup import find_image
from vecontroller.api.rebuild import next_root_seq
from vecontroller.groups.member import fits, own_spec
from vecontroller.view import Held, View

_AT_START = ("env", "command")
"""Of a spec: what a running VE can't be given."""


def image_for(view: View, revision: Revision) -> Held[Image]:
    """What the image of the revision was when it came; what is called so now, if that is gone. NotFound: neither."""
    pinned = view.images.get(revision.image_digest)
    return pinned or find_image(view, revision.template.spec.image)


def with_revision(view: View, ve: VE, revision: Revision) -> VE:
    """Live, with a restart, or with a new root, as little as it takes. NotFound: the image of the new root."""
    after = msgspec.structs.replace(ve, group_revision=revision.number)
    if fits(ve, revision.template):
        return after
    after = msgspec.structs.replace(
        after,
        labels=dict(revision.template.labels),
        spec=own_spec(ve, revision.template),
        generation=ve.generation + 1,
    )
    if after.spec.image != ve.spec.image:
        image = image_for(view, revision).value
        if image.digest != ve.image_digest:
            root = RootWish(seq=next_root_seq(view, ve))
            return msgspec.structs.replace(after, image_digest=image.digest, root=root)
    needs_start = is_up(view, ve) and _at_start(ve.spec) != _at_start(after.spec)
    return restarted(view, after, ve.stop_timeout_s) if needs_start else after


def _at_start(spec: Spec) -> tuple[object, ...]:
    return tuple(getattr(spec, field) for field in _AT_START)
