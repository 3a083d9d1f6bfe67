"""Tells a host that lacks an image from which host to fetch it, and that host to expect it.

The choice is deterministic: of the live holders the one with the fewest grants of the last minute, then by name. So a new
image spreads over the rack as hosts get it, instead of all of them asking the first. How often one host is granted a
source is limited: each grant is a message to another host, and kept for a minute.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from veapi.clock import Clock
from veapi.errors import NotFound, Unavailable, VerackError
from veapi.model import Digest, HeldImage, HostFacts, HostName, HostState
from veapi.v1 import api_pb2, session_pb2
from vecontroller.ports import Hosts
from vecontroller.relay import TICKET_LIFE_S, Tell
from vecontroller.view import View

GRANTS_PER_ASKER = 64
"""Of the last 60 s, the life of a ticket."""


@dataclass(frozen=True, slots=True)
class _Grant:
    at: float
    asker: HostName
    holder: HostName


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
        self._clock = clock
        self._new_ticket = new_ticket
        self._granted: deque[_Grant] = deque()
        self._by_asker: Counter[HostName] = Counter()
        self._by_holder: Counter[HostName] = Counter()

    def find(self, asker: HostName, digest: Digest) -> session_pb2.ImageSource:
        """The answer for the asker; with a failure when it asks too often, or no live host holds the image."""
        self._forget_old_grants()
        if self._by_asker[asker] >= GRANTS_PER_ASKER:
            return session_pb2.ImageSource(digest=digest, failure=_failure(_too_often(asker)))
        view = self._view()
        for holder in self._live_holders(view, asker, digest):
            ticket = self._new_ticket()
            grant = session_pb2.PeerGrant(ticket=ticket, peer=asker, digest=digest)
            if self._tell(holder, session_pb2.SessionDown(peer_grant=grant)):
                self._remember(_Grant(self._clock.boot(), asker, holder))
                return _source(holder, view.hosts[holder].value, digest, ticket)
        return session_pb2.ImageSource(digest=digest, failure=_failure(_why_none(view, digest)))

    def _live_holders(self, view: View, asker: HostName, digest: Digest) -> list[HostName]:
        live = [
            name
            for name, held in view.hosts.items()
            if name != asker and _held(held.value, digest) is not None and self._is_live(name)
        ]
        return sorted(live, key=lambda name: (self._by_holder[name], name))

    def _is_live(self, host: HostName) -> bool:
        return self._hosts.connected(host) and self._hosts.host_state(host) is HostState.READY

    def _remember(self, grant: _Grant) -> None:
        self._granted.append(grant)
        self._by_asker[grant.asker] += 1
        self._by_holder[grant.holder] += 1

    def _forget_old_grants(self) -> None:
        since = self._clock.boot() - TICKET_LIFE_S
        while self._granted and self._granted[0].at <= since:
            grant = self._granted.popleft()
            _take_one(self._by_asker, grant.asker)
            _take_one(self._by_holder, grant.holder)


def _take_one(counts: Counter[HostName], host: HostName) -> None:
    counts[host] -= 1
    if not counts[host]:
        del counts[host]


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


def _too_often(asker: HostName) -> VerackError:
    return Unavailable(
        f"host {asker} asked too often: at most {GRANTS_PER_ASKER} images in {TICKET_LIFE_S:g} s",
        hint="it is told a source again in a minute; if it goes on, look at its veagent's log",
    )


def _failure(error: VerackError) -> api_pb2.Failure:
    return api_pb2.Failure(kind=error.kind, message=error.message, hint=error.hint)
