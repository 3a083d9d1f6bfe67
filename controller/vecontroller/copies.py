"""Which hosts hold an image, and which copies may go.

An image is kept on `replicas` hosts, chosen by rendezvous hashing: each host has a score for each image, and those with the
highest hold it. So a host that comes or goes moves only the images that it gains or loses. Beside them it is held where a
VE or a kept root was made of it, and where somebody asked for it (prefetch).

A copy is *spare* only when as many chosen hosts as shall hold the image really hold it, this one not counted, or when the
image was deleted. What a set does not speak of is no statement: hosts keep it.
"""

import hashlib
from collections.abc import Callable, Iterable
from itertools import chain

from veapi.errors import InvalidInput
from veapi.model import Digest, HostName, OnHostLoss, Prefetch, WantedImage
from veapi.selector import Labels, selector
from vecontroller.store import keys
from vecontroller.view import View

REPLICAS = 3
HELD_FOR_MOVES = 2
"""Hosts that hold an image of which a VE is made anew when its host is lost: that host may be one of them."""


class Copies:
    """Reads the view as it is at each call. `gone`: whether a host has been silent for so long that it counts no more."""

    def __init__(
        self,
        view: Callable[[], View],
        gone: Callable[[HostName], bool],
        *,
        replicas: int = REPLICAS,
    ) -> None:
        self._view = view
        self._gone = gone
        self._replicas = replicas
        self._able: tuple[tuple[HostName, Labels], ...] = ()
        self._moving: frozenset[Digest] = frozenset()
        self._bases: dict[Digest, tuple[int, frozenset[HostName]]] = {}

    def able(self) -> tuple[tuple[HostName, Labels], ...]:
        """Hosts that can take an image, with their labels; by name. One whose pool is full is none."""
        hosts = self._view().hosts
        return tuple(
            (name, hosts[name].value.labels)
            for name in sorted(hosts)
            if not hosts[name].value.refuses and not self._gone(name)
        )

    def base(self, digest: Digest) -> frozenset[HostName]:
        """Hosts that hold it whether a VE uses it or not; none when there is no such image."""
        self._look()
        return self._base(digest)

    def moving_changed(self) -> bool:
        """Whether other images than at the last look are of VEs that may be made anew elsewhere: two hosts shall hold those."""
        return self._of_moving() != self._moving

    def _of_moving(self) -> frozenset[Digest]:
        """Only where one host would be enough for the others."""
        if self._replicas >= HELD_FOR_MOVES:
            return frozenset()
        ves = (held.value for held in self._view().ves.values())
        return frozenset(
            ve.image_digest for ve in ves if ve.spec.on_host_loss is OnHostLoss.RECREATE
        )

    def _look(self) -> None:
        able, moving = self.able(), self._of_moving()
        if able != self._able or moving != self._moving:
            self._able, self._moving, self._bases = able, moving, {}

    def _replicas_of(self, digest: Digest) -> int:
        return max(self._replicas, HELD_FOR_MOVES) if digest in self._moving else self._replicas

    def _base(self, digest: Digest) -> frozenset[HostName]:
        """As of the last look at the hosts."""
        image = self._view().images.get(digest)
        if image is None:
            return frozenset()
        revision, found = self._bases.get(digest, (0, frozenset()))
        if revision != image.mod_revision:
            names = (name for name, _ in self._able)
            found = frozenset(chosen(digest, names, self._replicas_of(digest)))
            found |= _asked_for(self._able, image.value.prefetch)
            self._bases[digest] = image.mod_revision, found
        return found

    def wanted_on(self, digest: Digest) -> frozenset[HostName]:
        """All hosts that shall hold it now."""
        view = self._view()
        users = (uid for uid, held in view.ves.items() if held.value.image_digest == digest)
        placed = (view.placements[uid].value.host for uid in users if uid in view.placements)
        kept = (
            held.value.placement.host
            for held in chain(view.deleted.values(), view.left.values())
            if held.value.ve.image_digest == digest
        )
        return self.base(digest) | frozenset(placed) | frozenset(kept)

    def of_host(self, host: HostName) -> tuple[WantedImage, ...]:
        """What the host's set says of images: those that it shall hold, and those that it holds and may let go."""
        view = self._view()
        used = _used_on(view, host)
        self._look()
        wanted = [each for each in view.images if each in used or host in self._base(each)]
        found = [self._wanted(digest) for digest in wanted]
        known = used.union(wanted)
        for image in view.hosts[host].value.images if host in view.hosts else ():
            if image.digest not in known:
                spare = self._enough_without(host, image.digest)
                found.append(
                    WantedImage(digest=image.digest, blob_digest=image.blob_digest, spare=spare)
                )
        return tuple(sorted(found, key=lambda image: image.digest))

    def _wanted(self, digest: Digest) -> WantedImage:
        blob_digest = self._view().images[digest].value.blob_digest
        return WantedImage(digest=digest, blob_digest=blob_digest)

    def _enough_without(self, host: HostName, digest: Digest) -> bool:
        """Also when it was deleted: then nobody needs to hold it. One whose record can't be read was not."""
        view = self._view()
        if digest not in view.images:
            return keys.image(digest) not in view.quarantined
        holding = [name for name in self.base(digest) if name != host and holds(view, name, digest)]
        return len(holding) >= self._replicas_of(digest)


def chosen(digest: Digest, able: Iterable[HostName], replicas: int) -> list[HostName]:
    """The hosts with the highest scores for the image; the same ones wherever it is asked."""
    return sorted(able, key=lambda host: _score(digest, host), reverse=True)[:replicas]


def holds(view: View, host: HostName, digest: Digest) -> bool:
    """Whether the host says so."""
    held = view.hosts.get(host)
    return held is not None and any(image.digest == digest for image in held.value.images)


def _score(digest: Digest, host: HostName) -> bytes:
    return hashlib.blake2b(f"{digest}/{host}".encode(), digest_size=8).digest()


def _asked_for(
    able: tuple[tuple[HostName, Labels], ...], prefetch: Prefetch
) -> frozenset[HostName]:
    named = frozenset(name for name, _ in able if name in prefetch.hosts)
    if not prefetch.selector:
        return named
    try:
        selects = selector(prefetch.selector)
    except InvalidInput:  # of a newer controller
        return named
    return named | {name for name, labels in able if selects(labels)}


def _used_on(view: View, host: HostName) -> frozenset[Digest]:
    """Of VEs that are placed there, and of roots that are kept there."""
    placed = (view.ves[uid] for uid in view.placed_on.get(host, ()) if uid in view.ves)
    kept = (view.deleted[uid] for uid in view.deleted_on.get(host, ()) if uid in view.deleted)
    left = (view.left[host, uid] for uid in view.left_on.get(host, ()))
    return frozenset(
        [held.value.image_digest for held in placed]
        + [held.value.ve.image_digest for held in chain(kept, left)]
    )


class Holdings:
    """Remembers what hosts said, and tells whose set their news may change."""

    def __init__(self, copies: Copies, view: Callable[[], View]) -> None:
        self._copies = copies
        self._view = view
        self._held: dict[HostName, frozenset[Digest]] = {}
        self._able: object = None

    def concerned(self, hosts: Iterable[HostName]) -> frozenset[HostName] | None:
        """By the news of these hosts; None: all hosts, as other ones are chosen now."""
        view, able = self._view(), self._copies.able()
        if able != self._able:
            self._able = able
            self._held = {name: _digests(view, name) for name in view.hosts}
            return None
        moved: set[Digest] = set()
        for name in hosts:
            now = _digests(view, name)
            moved |= now ^ self._held.get(name, frozenset())
            self._held[name] = now
        holders = (name for name, held in self._held.items() if held & moved)
        return frozenset(holders).union(hosts) if moved else frozenset()


def _digests(view: View, host: HostName) -> frozenset[Digest]:
    held = view.hosts.get(host)
    return frozenset(image.digest for image in held.value.images) if held else frozenset()
