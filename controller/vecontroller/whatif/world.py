"""The world of a view: what the scheduler would decide from at this moment, as frozen values."""

from collections.abc import Iterable

from vecontroller import decisions
from vecontroller.placement import HostRow, Rules, request
from vecontroller.view import View
from vecontroller.whatif.model import Known, World


def world_of(view: View, rows: Iterable[HostRow], rules: Rules) -> World:
    """`rows`: the hosts with all that is on its way to them."""
    _, wanting = decisions.without_unreadable(view, decisions.wanting(view))
    waiting = sorted(wanting.values(), key=lambda held: (held.create_revision, held.value.uid))
    return World(
        hosts=tuple(sorted(rows, key=lambda row: row.name)),
        waiting=tuple(request(view, held, rules) for held in waiting),
        known={
            uid: Known(project=held.value.project, name=held.value.name)
            for uid, held in view.ves.items()
        },
        images={tag: held.value for tag, held in view.tags.items()},
        revision=view.revision,
    )
