"""Events of VEs, merged by time; a watch tells the earlier ones first, then each new one once."""

from collections.abc import AsyncIterator, Iterable

from veapi.model import VE, Uid
from veapi.v1 import api_pb2, types_pb2
from vecontroller.api.describe import Describe
from vecontroller.api.lookup import find_ve
from vecontroller.api.ports import ApiDeps
from vecontroller.api.selection import Selection, events_selection


def list_events(
    deps: ApiDeps, describe: Describe, request: api_pb2.ListEventsRequest
) -> list[types_pb2.Event]:
    """Oldest first. NotFound when the one VE that it names is not there."""
    selected = events_selection(request)
    if request.ve and not request.all_projects:
        find_ve(deps.mirror.view, api_pb2.VERef(project=request.project, name=request.ve))
    ves = (held.value for held in selected.of(deps.mirror.view))
    return _by_time(event for ve in ves for event in describe.events(ve))


async def watch_events(
    deps: ApiDeps, describe: Describe, request: api_pb2.ListEventsRequest
) -> AsyncIterator[types_pb2.Event]:
    """For ever. A VE that does not exist yet is waited for."""
    news = _News(describe, events_selection(request))
    with deps.topic.subscribe() as changes:
        uids: Iterable[Uid] = list(deps.mirror.view.ves)
        while True:
            view = deps.mirror.view
            ves = [view.ves[uid].value for uid in sorted(uids) if uid in view.ves]
            for event in _by_time(event for ve in ves for event in news.of(ve)):
                yield event
            news.forget(uid for uid in uids if uid not in view.ves)
            changed = await changes.next()
            uids = list(deps.mirror.view.ves) if changed.relisted else changed.ves


class _News:
    """Which events were told already: at most 20 are known of a VE, so no more are remembered."""

    def __init__(self, describe: Describe, selected: Selection) -> None:
        self._describe = describe
        self._selected = selected
        self._told: dict[Uid, list[types_pb2.Event]] = {}

    def of(self, ve: VE) -> list[types_pb2.Event]:
        if not self._selected.holds(ve):
            return []
        now, told = self._describe.events(ve), self._told.get(ve.uid, [])
        self._told[ve.uid] = now
        return [event for event in now if event not in told]

    def forget(self, uids: Iterable[Uid]) -> None:
        for uid in uids:
            self._told.pop(uid, None)


def _by_time(events: Iterable[types_pb2.Event]) -> list[types_pb2.Event]:
    return sorted(events, key=lambda event: (event.time.seconds, event.time.nanos))
