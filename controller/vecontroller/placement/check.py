"""What a check is: a condition that hosts meet or not, with a mask over all hosts and words for one that fails.

`plan`, `explain`, refusals and `capacity` use the same checks, so that what is said is what is done.
"""

from enum import Enum
from typing import Protocol

from vecontroller.placement.board import Board, Bools


class When(Enum):
    """What may change whether a host passes while VEs are placed."""

    NEVER = "never"
    ROOM = "room"
    CROWD = "crowd"


class Check(Protocol):
    """One condition. `name` says what is checked, e.g. "memory"."""

    @property
    def name(self) -> str: ...

    @property
    def when(self) -> When: ...

    def passes(self, board: Board) -> Bools:
        """Shape (hosts,)."""
        ...

    def why(self, board: Board, host: int) -> str:
        """Of a host that fails, with numbers."""
        ...

    def change(self, board: Board, host: int) -> str:
        """What would make it pass there, as a wish: "free 2G of memory on h7"."""
        ...

    def effort(self, board: Board, host: int) -> float:
        """How large that change is, to compare by: the share of the host that is to be freed; else 1 or more."""
        ...

    def counted(self, board: Board, failing: Bools) -> list[str]:
        """Of all that fail, for the sum of a refusal: "31 too little memory (largest free 1.5G)"."""
        ...
