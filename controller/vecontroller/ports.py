"""What the controller's loops need of each other, as small Protocols; `core` hands them in."""

from collections.abc import Sequence
from typing import Protocol

from veapi.model import HostName, HostState
from vecontroller.store.port import Guard, Write
from vecontroller.view import View


class Mirrored(Protocol):
    """The mirror."""

    @property
    def view(self) -> View: ...

    async def reached(self, revision: int, *, timeout_s: float = 5.0) -> None:
        """Returns once the view has that revision. Raises TimedOut."""
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
        """The revision. Raises LostRace, Conflict, NotLeader, Ambiguous, Unavailable."""
        ...


class Hosts(Protocol):
    """What the sessions know of hosts."""

    def host_state(self, host: HostName) -> HostState: ...

    def connected(self, host: HostName) -> bool:
        """Whether a session of it is live."""
        ...


class Passes(Protocol):
    """Counts what passes of the scheduler came to."""

    def passed(self, seconds: float, *, placed: int = 0, refused: int = 0, lost: int = 0) -> None:
        """A pass with VEs to place has ended."""
        ...
