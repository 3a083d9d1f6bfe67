"""A group: so many VEs of one template, under stable names, changed a few at a time."""

from collections.abc import Mapping

from veapi.model.basics import Digest, Event, Value
from veapi.model.ve import Spec

REVISIONS_KEPT = 10


class Template(Value, frozen=True, kw_only=True):
    """What each VE of a group is made as; `run`, `ip` and `host` of the spec are each VE's own."""

    labels: Mapping[str, str]
    spec: Spec


class Revision(Value, frozen=True, kw_only=True):
    """A template that a group had. `image_digest`: what its image was then; `cause`: "apply", or e.g. "undo to 2"."""

    number: int
    template: Template
    image_digest: Digest
    created_at: float
    cause: str


class Group(Value, frozen=True, kw_only=True):
    """The desired group: content of group/spec/<project>/<name>. `revisions`: oldest first, never none, the last one counts.

    `max_unavailable`: "2" or "25%"; `tries` counts the wishes that a stopped rollout is tried once more.
    """

    uid: str
    name: str
    project: str
    labels: Mapping[str, str]
    generation: int
    replicas: int
    revisions: tuple[Revision, ...]
    created_at: float
    max_unavailable: str = "1"
    min_ready_s: float = 1.0
    progress_deadline_s: float = 600.0
    paused: bool = False
    delete_requested_at: float | None = None
    keep_ves: bool = False
    purge: bool = False
    tries: int = 0
    request_id: str = ""
    op_id: str = ""

    @property
    def current(self) -> Revision:
        """The revision that all VEs shall have."""
        return self.revisions[-1]


class GroupStatus(Value, frozen=True, kw_only=True):
    """What must not be forgotten of a group: content of group/status/<project>/<name>. `uid`: the group's.

    `stable`: the last revision that all VEs had and were available with. `stopped_revision` and `stopped_try`: of the rollout
    that was stopped; 0: none was.
    """

    uid: str
    stable: int = 0
    stopped_revision: int = 0
    stopped_try: int = 0
    stopped_why: str = ""
    events: tuple[Event, ...] = ()
    op_id: str = ""
