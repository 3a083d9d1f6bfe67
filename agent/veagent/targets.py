"""Which controller to dial next: pure.

For seconds after its death the others still name the old leader. So who was just found dead is dialled neither on their
word nor in its turn, as long as another is left to ask.
"""

from collections import deque
from collections.abc import Sequence

DEAD_FOR_S = 3.0
"""How long a controller that did not answer is not dialled on the word of others: a new leader comes by then."""


class Targets:
    """The configured controllers in turn, and before them the leader that one of them named."""

    def __init__(self, controllers: Sequence[str]) -> None:
        """Each host:port or unix:/path."""
        self._turn = deque(controllers)
        self._named = ""
        self._dead: dict[str, float] = {}

    def next(self, *, now: float) -> str:
        """Whom to dial; those that were just found dead only when all were."""
        if self._named:
            target, self._named = self._named, ""
            return target
        for _ in range(len(self._turn)):
            if not self._is_dead(self._turn[0], now):
                break
            self._turn.rotate(-1)
        return self._turn[0]

    @property
    def leader_named(self) -> bool:
        """Whether somebody said whom to dial next."""
        return bool(self._named)

    def again(self, target: str) -> None:
        """It refused us, but its answer was lost."""
        self._named = target

    def refused(self, target: str, *, leader: str, now: float) -> None:
        """It does not lead; `leader` (configured or not, may be empty) is who does, as it says.

        That one's certificate will say whether it is a controller.
        """
        self._pass_by(target)
        self._named = leader if leader != target and not self._is_dead(leader, now) else ""

    def failed(self, target: str, *, now: float) -> None:
        """It can't be reached, or ended the session without a word; `now` by the boot clock."""
        self._dead = {each: at for each, at in self._dead.items() if now - at < DEAD_FOR_S}
        self._dead[target] = now
        self._pass_by(target)

    def _pass_by(self, target: str) -> None:
        if target == self._turn[0]:
            self._turn.rotate(-1)

    def _is_dead(self, target: str, now: float) -> bool:
        at = self._dead.get(target)
        return at is not None and now - at < DEAD_FOR_S
