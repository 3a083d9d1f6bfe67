"""Folds what the store holds into a `View`, and says what that changed. Pure: no store, no clock.

One rule per kind of key. A value that can't be read leaves the view as if its key were deleted, and is noted in
`quarantined`; a key that this version does not know is left alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from veapi.model import VE, Digest, HostName, ProjectAmounts, Uid
from vecontroller import quota
from vecontroller.store import keys, values
from vecontroller.store.keys import Kind
from vecontroller.store.port import StoreItem
from vecontroller.store.values import Unreadable
from vecontroller.view import Changed, Held, View

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class Changes:
    """Collects what a batch changed. The beat of the leader changes nothing that anybody waits for."""

    ves: set[Uid] = field(default_factory=set)
    hosts: set[HostName] = field(default_factory=set)
    placed: set[HostName] = field(default_factory=set)
    images: bool = False
    projects: bool = False
    groups: set[tuple[str, str]] = field(default_factory=set)
    all: bool = False

    def add(self, other: "Changes") -> None:
        self.ves |= other.ves
        self.hosts |= other.hosts
        self.placed |= other.placed
        self.images |= other.images
        self.projects |= other.projects
        self.groups |= other.groups
        self.all |= other.all

    def done(self, revision: int) -> Changed | None:
        """As one value; None when nothing changed."""
        changed = Changed(
            revision=revision,
            ves=frozenset(self.ves),
            hosts=frozenset(self.hosts),
            placed=frozenset(self.placed),
            images=self.images,
            projects=self.projects,
            groups=frozenset(self.groups),
            relisted=self.all,
        )
        return None if changed == Changed(revision=revision) else changed


def apply(view: View, key: str, item: StoreItem | None, changes: Changes) -> None:
    """Puts the item into the view; None: the key was deleted."""
    parsed = keys.parse(key)
    if parsed is None:
        return
    kind, parts = parsed
    rule = _RULES.get(kind)
    if rule is None:
        return
    own = Changes()
    try:
        rule(view, parts, item, own)
        view.quarantined.pop(key, None)
    except Unreadable:
        assert item is not None
        rule(view, parts, None, own)
        view.quarantined[key] = item.mod_revision
    view.touch(own.hosts | own.placed)
    changes.add(own)


def _set(
    table: dict[K, Held[V]], key: K, item: StoreItem | None, decode: Callable[[bytes], V]
) -> None:
    if item is None:
        table.pop(key, None)
    else:
        table[key] = _held(item, decode)


def _held(item: StoreItem, decode: Callable[[bytes], V]) -> Held[V]:
    return Held(decode(item.value), item.mod_revision, item.create_revision)


def _host_of(view: View, uid: Uid) -> set[HostName]:
    placement = view.placements.get(uid)
    return {placement.value.host} if placement is not None else set()


def _count(view: View, project: str, more: ProjectAmounts, *, sign: int) -> None:
    """Adds to what the project has, or takes it away."""
    had = view.amounts.get(project, quota.NOTHING)
    now = quota.added(had, more, sign=sign)
    if now == quota.NOTHING:
        view.amounts.pop(project, None)
    else:
        view.amounts[project] = now


def _group_of(view: View, uid: Uid) -> set[tuple[str, str]]:
    held = view.ves.get(uid)
    if held is None or not held.value.group:
        return set()
    return {(held.value.project, held.value.group)}


def _ve(view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    uid = Uid(parts[0])

    def decode(data: bytes) -> VE:
        ve = values.decode_ve(data)
        if ve.uid != uid:
            raise Unreadable(f"the value is of {ve.uid}")
        return ve

    before, old = _group_of(view, uid), view.ves.get(uid)
    _set(view.ves, uid, item, decode)
    after, new = _group_of(view, uid), view.ves.get(uid)
    for held, sign in ((old, -1), (new, 1)):
        if held is not None:
            _count(view, held.value.project, quota.of_ve(held.value), sign=sign)
    for group in before - after:
        view.members[group].discard(uid)
        if not view.members[group]:
            del view.members[group]
    for group in after:
        view.members[group].add(uid)
    changes.groups |= before | after
    changes.ves.add(uid)
    changes.placed |= _host_of(view, uid)


def _name(view: View, parts: tuple[str, ...], item: StoreItem | None, _changes: Changes) -> None:
    _set(view.names, (parts[0], parts[1]), item, _uid)


def _placement(
    view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes
) -> None:
    uid = Uid(parts[0])
    before = _host_of(view, uid)
    _set(view.placements, uid, item, values.decode_placement)
    after = _host_of(view, uid)
    for host in before - after:
        view.placed_on[host].discard(uid)
        if not view.placed_on[host]:
            del view.placed_on[host]
    for host in after - before:
        view.placed_on[host].add(uid)
    changes.ves.add(uid)
    changes.groups |= _group_of(view, uid)
    changes.placed |= before | after


def _status(view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    uid = Uid(parts[0])
    _set(view.statuses, uid, item, values.decode_status)
    changes.ves.add(uid)
    changes.groups |= _group_of(view, uid)


def _deleted(view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    uid = Uid(parts[0])
    before = view.deleted.get(uid)
    _set(view.deleted, uid, item, values.decode_deleted)
    after = view.deleted.get(uid)
    for held, sign in ((before, -1), (after, 1)):
        if held is not None:
            _count(view, held.value.ve.project, quota.of_deleted(held.value), sign=sign)
    if before is not None:
        host = before.value.placement.host
        view.deleted_on[host].discard(uid)
        if not view.deleted_on[host]:
            del view.deleted_on[host]
        changes.placed.add(host)
    if after is not None:
        view.deleted_on[after.value.placement.host].add(uid)
        changes.placed.add(after.value.placement.host)
    changes.ves.add(uid)


def _left(view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    host, uid = HostName(parts[0]), Uid(parts[1])
    _set(view.left, (host, uid), item, values.decode_deleted)
    if (host, uid) in view.left:
        view.left_on[host].add(uid)
    else:
        view.left_on[host].discard(uid)
        if not view.left_on[host]:
            del view.left_on[host]
    changes.placed.add(host)
    changes.ves.add(uid)


def _address(view: View, parts: tuple[str, ...], item: StoreItem | None, _changes: Changes) -> None:
    key = (parts[0], parts[1])
    before = view.addresses.get(key)
    _set(view.addresses, key, item, _uid)
    after = view.addresses.get(key)
    if before is not None:
        view.addresses_of[before.value].discard(key)
        if not view.addresses_of[before.value]:
            del view.addresses_of[before.value]
    if after is not None:
        view.addresses_of[after.value].add(key)


def _host(view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    name = HostName(parts[0])
    _set(view.hosts, name, item, values.decode_host_status)
    changes.hosts.add(name)


def _host_spec(
    view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes
) -> None:
    name = HostName(parts[0])
    _set(view.host_specs, name, item, values.decode_host_spec)
    changes.hosts.add(name)


def _image(view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    _set(view.images, Digest(parts[0]), item, values.decode_image)
    changes.images = True


def _tag(view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    _set(view.tags, parts[0], item, _digest)
    changes.images = True


def _project(view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    _set(view.projects, parts[0], item, values.decode_project)
    changes.projects = True


def _group(view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    key = (parts[0], parts[1])
    _set(view.groups, key, item, values.decode_group)
    changes.groups.add(key)


def _group_status(
    view: View, parts: tuple[str, ...], item: StoreItem | None, changes: Changes
) -> None:
    key = (parts[0], parts[1])
    _set(view.group_statuses, key, item, values.decode_group_status)
    changes.groups.add(key)


def _cluster(view: View, _parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    view.cluster = _held(item, values.decode_cluster) if item is not None else None
    changes.all = True


def _leader(view: View, _parts: tuple[str, ...], item: StoreItem | None, changes: Changes) -> None:
    view.leader = _held(item, values.decode_leader) if item is not None else None
    changes.all = True


def _uid(data: bytes) -> Uid:
    return Uid(values.decode_ref(data).target)


def _digest(data: bytes) -> Digest:
    return Digest(values.decode_ref(data).target)


_Rule = Callable[[View, tuple[str, ...], StoreItem | None, Changes], None]
_RULES: dict[Kind, _Rule] = {
    Kind.VE_SPEC: _ve,
    Kind.VE_NAME: _name,
    Kind.VE_PLACEMENT: _placement,
    Kind.VE_STATUS: _status,
    Kind.VE_DELETED: _deleted,
    Kind.VE_LEFT: _left,
    Kind.ADDRESS: _address,
    Kind.HOST_STATUS: _host,
    Kind.HOST_SPEC: _host_spec,
    Kind.IMAGE: _image,
    Kind.IMAGE_TAG: _tag,
    Kind.PROJECT: _project,
    Kind.GROUP: _group,
    Kind.GROUP_STATUS: _group_status,
    Kind.CLUSTER: _cluster,
    Kind.LEADER: _leader,
}
