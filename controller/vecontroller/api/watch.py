"""Watch: a snapshot, then exactly the later changes.

The subscription is opened before the snapshot is taken, so nothing falls between them. What is sent is decided by comparing
what the VE looks like now with what was sent last: so a wake-up for nothing sends nothing, and changes that come together
are sent as one. A VE that is not selected any more is DELETED for this watch.
"""

from collections.abc import AsyncIterator, Iterable

from veapi.model import VE, HostName, Uid
from veapi.v1 import api_pb2, types_pb2
from vecontroller.api.departed import Departed
from vecontroller.api.describe import Describe, uids_on
from vecontroller.api.ports import ApiDeps
from vecontroller.api.selection import Selection, selection
from vecontroller.view import Changed, Held, View

Change = api_pb2.VEChange
PACE_S = 0.01
"""After what was sent: what changes meanwhile is sent as one. A lone change is never held up."""


class Watcher:
    """One watch: what it sent last of each VE."""

    def __init__(self, deps: ApiDeps, describe: Describe, selected: Selection) -> None:
        self._deps = deps
        self._describe = describe
        self._selected = selected
        self._sent: dict[Uid, types_pb2.VE] = {}

    def snapshot(self) -> list[api_pb2.VEChange]:
        """All VEs as ADDED, then SYNCED."""
        found = self.differences(held.value.uid for held in self._selected.of(self._view))
        return [*found, self._change(Change.KIND_SYNCED, None)]

    def later_than(self, revision: int, departed: Departed) -> list[api_pb2.VEChange]:
        """What changed after the revision; all else counts as sent."""
        found = [
            self._change(Change.KIND_DELETED, self._shown(gone.held))
            for gone in departed.since(revision)
            if self._selected.holds(gone.held.value) and gone.held.create_revision <= revision
        ]
        for held in self._selected.of(self._view):
            message = self._shown(held)
            self._sent[held.value.uid] = message
            if _last_revision(self._view, held.value.uid) > revision:
                added = held.create_revision > revision
                kind = Change.KIND_ADDED if added else Change.KIND_CHANGED
                found.append(self._change(kind, message))
        return found

    def differences(self, uids: Iterable[Uid]) -> list[api_pb2.VEChange]:
        """What is to be sent of these VEs now."""
        return [change for uid in uids if (change := self._difference(uid)) is not None]

    def affected(self, changed: Changed) -> Iterable[Uid]:
        """Those that may look different now, in a fixed order."""
        if changed.relisted:
            return sorted(self._sent.keys() | self._view.ves.keys())
        on_hosts = [uids_on(self._view, HostName(host)) for host in changed.hosts]
        return sorted(changed.ves.union(*on_hosts))

    @property
    def _view(self) -> View:
        return self._deps.mirror.view

    def _difference(self, uid: Uid) -> api_pb2.VEChange | None:
        held, last = self._view.ves.get(uid), self._sent.get(uid)
        if held is None or not self._selected.holds(held.value):
            if last is None:
                return None
            del self._sent[uid]
            return self._change(Change.KIND_DELETED, last)
        message = self._shown(held)
        if message == last:
            return None
        self._sent[uid] = message
        return self._change(Change.KIND_ADDED if last is None else Change.KIND_CHANGED, message)

    def _shown(self, held: Held[VE]) -> types_pb2.VE:
        """Snapshots are of those that were named: of all there may be hundreds of thousands."""
        return self._describe.ve(held, snapshots=bool(self._selected.names))

    def _change(
        self, kind: "api_pb2.VEChange.Kind.ValueType", ve: types_pb2.VE | None
    ) -> api_pb2.VEChange:
        return api_pb2.VEChange(kind=kind, ve=ve, revision=self._view.revision)


async def watch(
    deps: ApiDeps, describe: Describe, departed: Departed, request: api_pb2.WatchVEsRequest
) -> AsyncIterator[api_pb2.VEChange]:
    """For ever. Names that don't exist yet are waited for."""
    watcher = Watcher(deps, describe, selection(request))
    with deps.topic.subscribe() as changes:
        if request.revision:
            await deps.mirror.reached(request.revision)
            first = watcher.later_than(request.revision, departed)
        else:
            first = watcher.snapshot()
        for change in first:
            yield change
        while True:
            changed = await changes.next()
            for change in watcher.differences(watcher.affected(changed)):
                yield change
            await deps.clock.sleep(PACE_S)


def _last_revision(view: View, uid: Uid) -> int:
    """When anything stored of the VE changed last."""
    parts = (view.ves.get(uid), view.placements.get(uid), view.statuses.get(uid))
    return max(held.mod_revision for held in parts if held is not None)
