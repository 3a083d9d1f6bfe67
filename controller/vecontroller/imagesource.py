"""Tells a host that lacks an image from which host to fetch it, and that host to expect it.

The choice is deterministic: of the live holders the one with the fewest grants of the last minute, then by name. So a new
image spreads over the rack as hosts get it, instead of all of them asking the first. How often one host is granted a
source is limited: each grant is a message to another host, and kept for a minute.
"""

from collections import Counter, deque
from collections.abc import Callable

from veapi.clock import Clock
from veapi.errors import NotFound, Unavailable, VerackError
from veapi.model import Digest, HeldImage, HostFacts, HostName, HostState
from veapi.v1 import api_pb2, session_pb2
from vecontroller.ports import Hosts
from vecontroller.relay import TICKET_LIFE_S, Tell
from vecontroller.view import View

GRANTS_PER_ASKER = 64
ASKS_PER_ASKER = 256
"""Of the last 60 s, the life of a ticket."""


class _Recent:
    """How often each host did something within the last 60 s."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times: deque[tuple[float, HostName]] = deque()
        self._counts: Counter[HostName] = Counter()

    def add(self, host: HostName) -> None:
        self._times.append((self._clock.boot(), host))
        self._counts[host] += 1

    def count(self, host: HostName) -> int:
        self._forget_old()
        return self._counts[host]

    def _forget_old(self) -> None:
        since = self._clock.boot() - TICKET_LIFE_S
        while self._times and self._times[0][0] <= since:
            _, host = self._times.popleft()
            self._counts[host] -= 1
            if not self._counts[host]:
                del self._counts[host]


class ImageSources:
    """Grants are kept in memory only, for their 60 s."""

    def __init__(
        self,
        view: Callable[[], View],
        hosts: Hosts,
        tell: Tell,
        clock: Clock,
        *,
        new_ticket: Callable[[], bytes],
    ) -> None:
        self._view = view
        self._hosts = hosts
        self._tell = tell
        self._new_ticket = new_ticket
        self._asked = _Recent(clock)
        self._granted_to = _Recent(clock)
        self._granted_by = _Recent(clock)

    def find(self, asker: HostName, digest: Digest) -> session_pb2.ImageSource:
        """The answer for the asker; with a failure when it asks too often, or no live host holds the image."""
        refusal = self._admit(asker)
        if refusal is not None:
            return session_pb2.ImageSource(digest=digest, failure=_failure(refusal))
        view = self._view()
        for holder in self._live_holders(view, asker, digest):
            ticket = self._new_ticket()
            grant = session_pb2.PeerGrant(ticket=ticket, peer=asker, digest=digest)
            if self._tell(holder, session_pb2.SessionDown(peer_grant=grant)):
                self._granted_to.add(asker)
                self._granted_by.add(holder)
                return _source(holder, view.hosts[holder].value, digest, ticket)
        return session_pb2.ImageSource(digest=digest, failure=_failure(_why_none(view, digest)))

    def _admit(self, asker: HostName) -> VerackError | None:
        """Why it is not answered now; else the ask is counted. Refused ones are not: they cost, and keep, nothing."""
        if self._granted_to.count(asker) >= GRANTS_PER_ASKER:
            return _too_often(asker, f"{GRANTS_PER_ASKER} images")
        if self._asked.count(asker) >= ASKS_PER_ASKER:
            return _too_often(asker, f"{ASKS_PER_ASKER} times")
        self._asked.add(asker)
        return None

    def _live_holders(self, view: View, asker: HostName, digest: Digest) -> list[HostName]:
        live = [
            name
            for name, held in view.hosts.items()
            if name != asker and _held(held.value, digest) is not None and self._is_live(name)
        ]
        return sorted(live, key=lambda name: (self._granted_by.count(name), name))

    def _is_live(self, host: HostName) -> bool:
        return self._hosts.connected(host) and self._hosts.host_state(host) is HostState.READY


def _held(facts: HostFacts, digest: Digest) -> HeldImage | None:
    return next((image for image in facts.images if image.digest == digest), None)


def _source(
    holder: HostName, facts: HostFacts, digest: Digest, ticket: bytes
) -> session_pb2.ImageSource:
    image = _held(facts, digest)
    assert image is not None
    return session_pb2.ImageSource(
        digest=digest,
        ticket=ticket,
        peer=holder,
        address=f"{facts.address}:{facts.peer_port}",
        blob_digest=image.blob_digest,
    )


def _why_none(view: View, digest: Digest) -> VerackError:
    holders = sorted(name for name, held in view.hosts.items() if _held(held.value, digest))
    if holders:
        return Unavailable(
            f"the hosts that hold image {digest[:19]} do not answer: {', '.join(holders)}",
            hint="it is fetched as soon as one of them is back",
        )
    return NotFound(
        f"no other host holds image {digest[:19]}", hint="import it again with `vectl image import`"
    )


def _too_often(asker: HostName, most: str) -> VerackError:
    return Unavailable(
        f"host {asker} asked too often: at most {most} in {TICKET_LIFE_S:g} s",
        hint="it is told a source again in a minute; if it goes on, look at its veagent's log",
    )


def _failure(error: VerackError) -> api_pb2.Failure:
    return api_pb2.Failure(kind=error.kind, message=error.message, hint=error.hint)
