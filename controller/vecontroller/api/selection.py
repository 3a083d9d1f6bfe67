"""Which VEs a request means: of one project or all, by labels and names."""

from dataclasses import dataclass
from itertools import chain

from veapi import validate
from veapi.errors import InvalidInput
from veapi.model import VE, Deleted
from veapi.selector import Selector, selector
from veapi.v1 import api_pb2
from vecontroller.api.lookup import project_of
from vecontroller.view import Held, View

MAX_NAMES = 10_000


@dataclass(frozen=True, slots=True)
class Selection:
    """`project` empty: all of them. `names` empty: all of them."""

    project: str
    labels: Selector
    names: frozenset[str]

    def holds(self, ve: VE) -> bool:
        return (
            (not self.project or ve.project == self.project)
            and (not self.names or ve.name in self.names)
            and self.labels(ve.labels)
        )

    def of(self, view: View) -> list[Held[VE]]:
        """Ordered by project and name."""
        found = [held for held in view.ves.values() if self.holds(held.value)]
        return sorted(found, key=lambda held: (held.value.project, held.value.name))

    def deleted(self, view: View) -> list[Held[Deleted]]:
        """Those that are kept, and what moved ones left; ordered by project, name and time of their deletion."""
        kept = chain(view.deleted.values(), view.left.values())
        found = [held for held in kept if self.holds(held.value.ve)]
        return sorted(found, key=_by_deletion)


def _by_deletion(held: Held[Deleted]) -> tuple[str, str, float]:
    ve = held.value.ve
    return ve.project, ve.name, held.value.deleted_at


def selection(request: api_pb2.ListVEsRequest | api_pb2.WatchVEsRequest) -> Selection:
    if len(request.names) > MAX_NAMES:
        raise InvalidInput(
            f"names: {len(request.names)}; at most {MAX_NAMES}", hint="select by labels"
        )
    for name in request.names:
        validate.name("names", name)
    project = "" if request.all_projects else project_of(request.project)
    return Selection(project, selector(request.selector), frozenset(request.names))


def events_selection(request: api_pb2.ListEventsRequest) -> Selection:
    names = frozenset((validate.name("ve", request.ve),)) if request.ve else frozenset[str]()
    project = "" if request.all_projects else project_of(request.project)
    return Selection(project, selector(""), names)
