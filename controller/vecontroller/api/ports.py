"""What the API needs of the rest of the controller: small ports, handed in together at the composition root."""

import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from veapi.clock import Clock
from veapi.errors import Unavailable, VerackError
from veapi.model import Digest, HostName, HostState, Resources, Uid, VEReport
from veapi.v1 import session_pb2
from vecontroller.failover.judge import Waits
from vecontroller.holding import Reserved
from vecontroller.placement import Board, Refusal, Rules
from vecontroller.placement.rules import PLAIN
from vecontroller.store.port import Guard, Write
from vecontroller.topic import Topic
from vecontroller.view import View

DEFAULT_PROJECT = "default"
KEEP_DELETED_S = 86_400.0
"""How long the root of a deleted VE is kept, unless the configuration says something else."""


class Mirrored(Protocol):
    """The mirror."""

    @property
    def view(self) -> View: ...

    async def reached(self, revision: int, *, timeout_s: float = 5.0) -> None:
        """Returns once the view has that revision. Raises TimedOut or Unavailable."""
        ...


class Commits(Protocol):
    """The writer. After a success the view shows what was written."""

    async def commit(
        self,
        guards: Sequence[Guard],
        writes: Sequence[Write],
        *,
        confirm: tuple[str, str] | None,
    ) -> int:
        """The revision. Raises LostRace, NotLeader, Ambiguous, Unavailable."""
        ...


class Refuses(Protocol):
    """The scheduler."""

    @property
    def refusals(self) -> Mapping[Uid, Refusal]: ...

    def coming(self, host: HostName) -> Sequence[Resources]:
        """What was given to VEs on that host and is not in the view yet."""
        ...

    def board(self) -> Board:
        """The hosts as the next decision would see them; the caller's own."""
        ...


class Hosts(Protocol):
    """The sessions."""

    def image_hosts(self, digest: Digest) -> frozenset[HostName]:
        """Hosts that shall hold the image."""
        ...

    def host_state(self, host: HostName) -> HostState: ...

    def silent_for(self, host: HostName) -> float:
        """Seconds of silence that count; 0 while that is not known."""
        ...

    def last_heartbeat(self, host: HostName) -> float | None:
        """Unix seconds, for people."""
        ...


class Orphans(Protocol):
    """The reports."""

    def orphans(self, host: HostName) -> tuple[VEReport, ...]:
        """What the host has and nobody's set names, as it said last."""
        ...

    def has_reported(self, host: HostName) -> bool:
        """Whether it has said, under this lead, all that it has."""
        ...


class Pipe(Protocol):
    """A stream to an agent that dialled back. Both directions have flow control."""

    async def send(self, message: session_pb2.RelayDown) -> None: ...

    async def receive(self) -> session_pb2.RelayUp | None:
        """None: the agent's end is closed."""
        ...

    def close(self, error: VerackError | None = None) -> None:
        """Ends both directions; `receive` raises the error, if any. Again: nothing."""
        ...


class Opens(Protocol):
    """The relays."""

    async def open(self, host: HostName, first: session_pb2.RelayDown) -> Pipe:
        """Raises Unavailable when the host does not dial back in time, Conflict when there are too many."""
        ...


class Leads(Protocol):
    """The leadership of this controller."""

    @property
    def epoch(self) -> int: ...

    @property
    def incarnation(self) -> int: ...


class Ids(Protocol):
    """Names that nobody else gives."""

    def new(self) -> str: ...


class RandomIds:
    """Lower-case UUIDs."""

    def new(self) -> str:
        return str(uuid.uuid4())


async def no_snapshot() -> AsyncGenerator[bytes, None]:
    """Of a store that has none."""
    for nothing in tuple[bytes, ...]():
        yield nothing
    raise Unavailable("this store can't be backed up", hint="back up the etcd of a controller")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiDeps:
    """All of it. `cluster` is the name in certificates, `controller` that of this one, `version` of this program.

    `waits`: why each VE on a host that does not answer is not moved. `keep_deleted_s`: how long a deleted VE's root is kept; 0: not at all.
    """

    cluster: str
    controller: str
    version: str
    mirror: Mirrored
    writer: Commits
    topic: Topic
    scheduler: Refuses
    hosts: Hosts
    orphans: Orphans
    relays: Opens
    leader: Leads
    clock: Clock
    ids: Ids
    reserved: Reserved
    waits: Callable[[], Mapping[Uid, Waits]] = dict
    keep_deleted_s: float = KEEP_DELETED_S
    rules: Rules = PLAIN
    snapshot: Callable[[], AsyncGenerator[bytes, None]] = no_snapshot
    """Of the whole store, in pieces."""
