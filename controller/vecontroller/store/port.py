"""The store as the controller's cores see it: a snapshot, then exactly the later events, and guarded transactions.

etcd is behind it in production; tests and the simulator have a model of it.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from veapi.errors import Unavailable, VerackError
from veapi.model import Value

MAX_TRANSACTION_OPS = 100
"""Compares and operations each: etcd's own limit is 128 of both kinds."""


class Compacted(VerackError):
    """Events after the wanted revision are gone: list again and diff."""

    kind = "compacted"


class TooFarBehind(Compacted):
    """So much was missed that a list is faster: list again and diff."""


class Regressed(Compacted):
    """The store is below what it had delivered (it was restored): list again, and trust no mod-revision."""


class Ambiguous(Unavailable):
    """A write may or may not have been applied. Read back and decide by the op_id in the value; never retry blindly."""

    kind = "ambiguous"


class StoreItem(Value, frozen=True, kw_only=True):
    key: str
    value: bytes
    mod_revision: int
    create_revision: int


class Snapshot(Value, frozen=True, kw_only=True):
    """All keys below the prefix, at one revision."""

    revision: int
    items: tuple[StoreItem, ...]


class StoreEvent(Value, frozen=True, kw_only=True):
    """`item` is None when the key was deleted."""

    key: str
    revision: int
    item: StoreItem | None


class Batch(Value, frozen=True, kw_only=True):
    """All events of one or more whole revisions, in order; a revision is never split over two batches."""

    revision: int
    events: tuple[StoreEvent, ...]


class Guard(Value, frozen=True, kw_only=True):
    """The key's mod-revision must be this; 0: the key must not exist."""

    key: str
    mod_revision: int


class Put(Value, frozen=True, kw_only=True):
    key: str
    value: bytes


class Delete(Value, frozen=True, kw_only=True):
    key: str


Write = Put | Delete


class Transacted(Value, frozen=True, kw_only=True):
    """`revision`: of the store after it. `found`: when refused, the items of the guarded keys as they are now."""

    succeeded: bool
    revision: int
    found: tuple[StoreItem, ...] = ()


class Store(Protocol):
    """Reads are retried inside, within a limit; writes never. Unavailable: could not be reached at all."""

    async def get(self, key: str) -> StoreItem | None:
        """Linearizable."""
        ...

    async def list(self, prefix: str) -> Snapshot: ...

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Batch]:
        """Every event after that revision, none lost, none twice, over reconnects. Raises Compacted."""
        ...

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> Transacted:
        """Raises Ambiguous, or Unavailable when it was surely not applied."""
        ...

    async def aclose(self) -> None: ...
