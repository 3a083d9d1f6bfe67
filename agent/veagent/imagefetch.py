"""Gets the images that this host shall hold and does not yet.

`ImageFetcher` gets one image from a peer: one request in flight per digest, shared by all who want it, with a limit
on its time. `ImageKeeper` holds what is wanted, tries again with a back-off, and tells when something has come.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from veagent.ends import backoff_s
from veagent.ports import Images, ImageSource
from veapi.clock import Clock
from veapi.errors import RemoteFailed, TimedOut, VerackError
from veapi.model import Digest, HeldImage, ImageConfig

log = structlog.get_logger()
FETCH_LIMIT_S = 900.0
FETCHES_AT_ONCE = 2
RETRY_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Source:
    """Who gives an image: `address` is host:port of the peer's service, `ticket` counts once within 60 s."""

    peer: str
    address: str
    ticket: bytes


class SourceFinder(Protocol):
    async def find(self, digest: Digest) -> Source:
        """Asks the controller. Raises its refusal, or Unavailable when there is no session."""
        ...


OpenBlob = Callable[[Source, Digest], AsyncIterator[bytes]]


class ImageFetcher:
    """ports.ImageSource over a finder and a peer."""

    def __init__(self, images: Images, finder: SourceFinder, open_blob: OpenBlob) -> None:
        self._images = images
        self._finder = finder
        self._open_blob = open_blob
        self._flights: dict[Digest, asyncio.Task[HeldImage]] = {}

    async def fetch(self, digest: Digest) -> HeldImage:
        """Joins the fetch that is under way, if any. TimedOut after 15 minutes."""
        flight = self._flights.get(digest)
        if flight is None:
            flight = asyncio.create_task(self._fetch(digest), name=f"fetch-{digest[:19]}")
            self._flights[digest] = flight
            flight.add_done_callback(lambda _: self._flights.pop(digest, None))
        return await asyncio.shield(flight)

    async def aclose(self) -> None:
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fetch(self, digest: Digest) -> HeldImage:
        try:
            async with asyncio.timeout(FETCH_LIMIT_S):
                source = await self._finder.find(digest)
                return await self._images.add(self._open_blob(source, digest), expect=digest)
        except TimeoutError:
            raise TimedOut(
                f"image {digest[:19]} did not arrive within {FETCH_LIMIT_S:g} s",
                hint="look at the network between the hosts",
            ) from None


class ImageKeeper:
    """Knows which images are held, and gets those that are wanted. `changed` is called after each arrival or failure."""

    def __init__(
        self, images: Images, source: ImageSource, clock: Clock, changed: Callable[[Digest], None]
    ) -> None:
        self._images = images
        self._source = source
        self._clock = clock
        self._changed = changed
        self._held: frozenset[Digest] = frozenset()
        self._wanted: frozenset[Digest] = frozenset()
        self._fetching: set[Digest] = set()
        self._tasks: dict[Digest, asyncio.Task[None]] = {}
        self._troubles: dict[Digest, str] = {}
        self._lanes = asyncio.Semaphore(FETCHES_AT_ONCE)

    def refresh(self) -> None:
        """Looks again at what is held."""
        self._held = frozenset(image.digest for image in self._images.held())

    def holds(self, digest: Digest) -> bool:
        return digest in self._held

    def config(self, digest: Digest) -> ImageConfig:
        """What the image says of the program to run; empty when it is not held."""
        return self._images.config(digest)

    def trouble(self, digest: Digest) -> str:
        """Why the last try to get it failed; empty when none has."""
        return self._troubles.get(digest, "")

    def want(self, digests: frozenset[Digest]) -> None:
        """These, and no others. What is held and not wanted is kept; what is on its way still comes, and is told."""
        self._wanted = digests
        for digest in set(self._tasks) - digests - self._fetching:
            self._tasks.pop(digest).cancel()
            self._troubles.pop(digest, None)
        for digest in digests - self._held - set(self._tasks):
            self._tasks[digest] = asyncio.create_task(self._get(digest), name=f"want-{digest[:19]}")

    async def aclose(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _get(self, digest: Digest) -> None:
        failures = 0
        while digest in self._wanted and not self.holds(digest):
            try:
                await self._fetch(digest)
            except VerackError as error:
                failures += 1
                self._failed(digest, error)
                await self._clock.sleep(min(RETRY_LIMIT_S, backoff_s(failures)))
            self.refresh()
        self._arrived(digest)

    async def _fetch(self, digest: Digest) -> None:
        """A mistake of ours is a failure like any other: nobody else would ever try again."""
        async with self._lanes:
            self._fetching.add(digest)
            try:
                await self._source.fetch(digest)
            except VerackError:
                raise
            except Exception:
                log.exception("image not fetched, unexpectedly", image=digest)
                raise RemoteFailed("internal error of the agent; see its log") from None
            finally:
                self._fetching.discard(digest)

    def _failed(self, digest: Digest, error: VerackError) -> None:
        log.warning("image not fetched", image=digest, error=error.message)
        self._troubles[digest] = error.message
        self._changed(digest)

    def _arrived(self, digest: Digest) -> None:
        self._tasks.pop(digest, None)
        self._troubles.pop(digest, None)
        self._changed(digest)
