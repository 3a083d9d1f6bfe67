"""What a project may still have: refused with numbers, or held while it is written.

What counts is what the view shows and what this leader's writes on their way add. It is decided and held between two awaits,
so two requests at once never pass a quota together. A write that took effect and is still held counts twice for a moment:
then too much is refused, never too little.
"""

from contextlib import AbstractContextManager, nullcontext

from veapi.errors import Conflict
from veapi.model import ProjectAmounts
from vecontroller import quota
from vecontroller.holding import Reserved
from vecontroller.store import keys
from vecontroller.store.port import Guard
from vecontroller.view import View


def refuse_more(view: View, reserved: Reserved, project: str, more: ProjectAmounts) -> None:
    """Conflict that names every resource of which too little is left."""
    held = view.projects.get(project)
    if held is None or quota.NOTHING in (held.value.quota, more):
        return
    used = quota.added(view.amounts.get(project, quota.NOTHING), reserved.asked(project))
    lacks = quota.exceeded(held.value.quota, used, more)
    if lacks:
        raise Conflict(
            f"quota of project {project}: {'; '.join(lacks)}",
            hint=f"delete or shrink some, or ask your operator for more; see `vectl project show {project}`",
        )


def allowed(
    view: View, reserved: Reserved, project: str, more: ProjectAmounts
) -> AbstractContextManager[None]:
    """Holds it; Conflict when that is more than is left. To be entered before anything is awaited."""
    if more == quota.NOTHING:
        return nullcontext()
    refuse_more(view, reserved, project, more)
    return reserved.asking(project, more)


def guards(view: View, project: str, more: ProjectAmounts) -> tuple[Guard, ...]:
    """Of the quota that was decided by, where there is one and something grows."""
    held = view.projects.get(project)
    if held is None or quota.NOTHING in (held.value.quota, more):
        return ()
    return (Guard(key=keys.project(project), mod_revision=held.mod_revision),)
