"""A cluster to think with, how it is to change, and what comes of it. Plain values; no I/O, no clock."""

from collections.abc import Mapping
from enum import StrEnum

from veapi.model import Digest, HostName, Resources, Uid, Value
from vecontroller.placement import HostRow, Refusal, Request


class Known(Value, frozen=True, kw_only=True):
    """How people call a VE."""

    project: str
    name: str


class World(Value, frozen=True, kw_only=True):
    """All that a placement is decided from. `waiting` have no host; those that have one are the tenants of `hosts`.

    `known`: all VEs; `images`: digests by tag; `revision`: of the store, at which it was so.
    """

    hosts: tuple[HostRow, ...]
    waiting: tuple[Request, ...]
    known: Mapping[Uid, Known]
    images: Mapping[str, Digest] = {}
    revision: int = 0


class AddedHosts(Value, frozen=True, kw_only=True):
    """Empty hosts like one that is there; `rack`: another one than its, if not empty."""

    count: int
    like: HostName
    rack: str = ""


class Changes(Value, frozen=True, kw_only=True):
    """What is to be imagined, all at once. `apply`: VEs as they would be; a uid that the world knows is a VE that changes."""

    remove_hosts: tuple[str, ...] = ()
    remove_racks: tuple[str, ...] = ()
    add: tuple[AddedHosts, ...] = ()
    apply: tuple[Request, ...] = ()


class Change(StrEnum):
    """Why a VE is looked at."""

    NEW = "new"
    CHANGED = "changed"
    DISPLACED = "displaced"
    WAITING = "waiting"


class Fate(Value, frozen=True, kw_only=True):
    """Of one VE. `host` empty: none fits, as the `refusal` says."""

    uid: Uid
    change: Change
    was_on: str = ""
    host: str = ""
    message: str = ""
    refusal: Refusal | None = None


class HostChange(Value, frozen=True, kw_only=True):
    """A host before and after. `change`: "added", "removed" or empty."""

    name: HostName
    rack: str
    change: str
    able: bool
    room: Resources
    before: Resources
    after: Resources
    ves_before: int
    ves_after: int


class Outcome(Value, frozen=True, kw_only=True):
    """`fates` in the order in which VEs are served; `hosts` by name."""

    fates: tuple[Fate, ...]
    hosts: tuple[HostChange, ...]
