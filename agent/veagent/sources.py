"""Where images can be had: asked over the session that is open, answered some time later."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from veagent.imagefetch import Source
from veapi.errors import TimedOut, Unavailable, VerackError
from veapi.model import Digest

ANSWER_LIMIT_S = 30.0
Ask = Callable[[Digest], Awaitable[None]]


class SourceDesk:
    """A SourceFinder. Questions that were open when a session ended fail; the keeper of images asks again."""

    def __init__(self) -> None:
        self._ask: Ask | None = None
        self._open: dict[Digest, asyncio.Future[Source]] = {}

    @contextmanager
    def attached(self, ask: Ask) -> Iterator[None]:
        """Questions go through `ask` meanwhile."""
        self._ask = ask
        try:
            yield
        finally:
            self._ask = None
            for digest in list(self._open):
                self.refused(digest, _no_session())

    async def find(self, digest: Digest) -> Source:
        """Unavailable without a session; TimedOut after 30 s without an answer; else the controller's refusal."""
        if self._ask is None:
            raise _no_session()
        if digest not in self._open:
            self._open[digest] = asyncio.get_running_loop().create_future()
            await self._ask(digest)
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                return await asyncio.shield(self._open[digest])
        except TimeoutError:
            raise TimedOut("the controller did not say who holds the image") from None
        finally:
            self._open.pop(digest, None)

    def found(self, digest: Digest, peer: str, address: str, ticket: bytes) -> None:
        answer = self._open.get(digest)
        if answer is not None and not answer.done():
            answer.set_result(Source(peer, address, ticket))

    def refused(self, digest: Digest, error: VerackError) -> None:
        answer = self._open.get(digest)
        if answer is not None and not answer.done():
            answer.set_exception(error)


def _no_session() -> Unavailable:
    return Unavailable("this host has no session with a controller", hint="it is tried again")
