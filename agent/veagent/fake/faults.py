"""Failing and dawdling on command, and a diary of what was asked."""

from collections import Counter, defaultdict

from veapi.clock import Clock
from veapi.errors import RemoteFailed, VerackError
from veapi.model import Uid

ANY = Uid("*")


class Faults:
    """`call` is what every method of a fake goes through first."""

    def __init__(self, clock: Clock) -> None:
        self.calls: list[tuple[str, Uid]] = []
        self._clock = clock
        self._errors: dict[tuple[str, Uid], list[VerackError]] = defaultdict(list)
        self._delays: dict[str, float] = {}

    def fail(
        self, action: str, uid: Uid = ANY, *, times: int = 1, error: VerackError | None = None
    ) -> None:
        """The next `times` calls of `action` for `uid` (any VE by default) fail."""
        wrong = error or RemoteFailed(f"{action} failed on command")
        self._errors[action, uid].extend([wrong] * times)

    def slow(self, action: str, seconds: float) -> None:
        """Every call of `action` takes so long, by the clock."""
        self._delays[action] = seconds

    def count(self, action: str) -> int:
        return Counter(name for name, _ in self.calls)[action]

    async def call(self, action: str, uid: Uid = ANY) -> None:
        self.calls.append((action, uid))
        delay = self._delays.get(action, 0.0)
        if delay > 0:
            await self._clock.sleep(delay)
        for key in ((action, uid), (action, ANY)):
            if self._errors[key]:
                raise self._errors[key].pop(0)
