"""Death at a chosen call: stands between an agent and its ports, and counts."""

import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any

_UNCOUNTED = ("aclose",)


class Deathbed:
    """`die` is awaited at each call whose number, from 1, is in `at`: before it, or (`after`) when it has been done."""

    def __init__(
        self, at: Collection[int], *, after: bool, die: Callable[[str], Awaitable[None]]
    ) -> None:
        self.calls: list[str] = []
        self.deaths: list[str] = []
        self._at = at
        self._after = after
        self._die = die

    def mortal(self, port: Any) -> Any:
        """The same port, each call of which may be the last."""
        return _Mortal(port, self)

    async def call(self, name: str, work: Callable[[], Awaitable[object]]) -> object:
        self.calls.append(name)
        dies = len(self.calls) in self._at
        if dies and not self._after:
            await self._end(name)
        result = await work()
        if dies:
            await self._end(name)
        return result

    async def _end(self, name: str) -> None:
        self.deaths.append(name)
        await self._die(name)


class _Mortal:
    """Passes everything on; what is awaited goes by the deathbed."""

    def __init__(self, port: Any, bed: Deathbed) -> None:
        self._port = port
        self._bed = bed

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name in _UNCOUNTED or not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: object, **kwargs: object) -> object:
            return await self._bed.call(name, lambda: found(*args, **kwargs))

        return call
