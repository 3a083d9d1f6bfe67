"""Tells vefence deadline and list, and knows what of it vefence goes by: only what it confirmed counts."""

from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from veagent.fence.door import Door
from veapi.clock import Clock
from veapi.model import Uid
from vefence.notes import Beat, KillList, Lease, Target

log = structlog.get_logger()
LIVE_WITHIN_S = 2.0
"""A vefence that has said nothing for longer is dead, or as good as that."""
REPAIR_AFTER_S = 1.0
"""It reads its notes four times a second; what it does not go by after this time it can't read."""


class Teller:
    """What can't be written does not count: vefence goes by the note before, and so does this."""

    def __init__(
        self, door: Door, clock: Clock, *, boot_id: str, cgroup_root: str, kill_within_s: float
    ) -> None:
        self.beat: Beat | None = None
        self.lease = Lease(boot_id, 0, 0.0, kill_within_s)
        self.targets: dict[Uid, Target] = {}
        self.found_deadline: float | None = None
        """What an earlier agent of this boot had told; None: nothing."""
        self.found_nothing = False
        """No earlier agent of this boot has told anything, or its notes are gone."""
        self._door = door
        self._clock = clock
        self._boot_id = boot_id
        self._cgroup_root = cgroup_root
        self._seq = 0
        self._list_seq = 0
        self._since: dict[Uid, int] = {}
        """Number of the list from which on vefence has each VE as it is listed now."""
        self._armed_seq = 0
        """Number of the first lease since it was armed or disarmed last."""
        self._lease_at = self._list_at = clock.boot()
        self._load(kill_within_s)

    def _load(self, kill_within_s: float) -> None:
        """VEs of an earlier agent are held by what that told, until this one says more. A list never goes without a lease."""
        lease, kill_list = self._door.told()
        self._seq = max(lease.seq if lease else 0, kill_list.seq if kill_list else 0)
        self.found_nothing = lease is None
        if lease is None:
            self.tell_lease(self._clock.boot(), kill_within_s, arming=0)
        else:
            self.lease, self._armed_seq = lease, lease.seq
            self.found_deadline = lease.deadline
        if kill_list is not None:
            self._list_seq = kill_list.seq
            self.targets = {Uid(target.uid): target for target in kill_list.targets}
            self._since = dict.fromkeys(self.targets, kill_list.seq)
        self.listen()

    def listen(self) -> None:
        """Hears the newest beat."""
        self.beat = self._door.heard()

    @property
    def disarmed(self) -> bool:
        return self.lease.deadline is None

    @property
    def live(self) -> bool:
        """Vefence runs."""
        return self.beat is not None and self._clock.boot() - self.beat.at < LIVE_WITHIN_S

    @property
    def arming_confirmed(self) -> bool:
        """Vefence goes by a lease of the newest arming."""
        return self.beat is not None and self.beat.lease_seq >= self._armed_seq

    def confirmed(self, uid: Uid) -> bool:
        """Vefence has it on its list, as it is listed now."""
        if self.beat is None or uid not in self.targets or not self.arming_confirmed:
            return False
        return self.beat.list_seq >= self._since[uid]

    def confirmed_dead(self) -> bool:
        """Vefence has seen, by what it was told last, that the lease has run out and that nothing of the list lives."""
        beat = self.beat
        if beat is None or not self.live:
            return False
        told_all = (beat.lease_seq, beat.list_seq) == (self.lease.seq, self._list_seq)
        return told_all and beat.expired and not beat.alive

    def posture(self) -> tuple[object, ...]:
        """Equal as long as nothing of the above can differ."""
        beat = self.beat
        return self.live, self.arming_confirmed, beat.list_seq if beat else 0, self._list_seq

    # Telling.

    def tell_lease(self, deadline: float | None, kill_within_s: float, *, arming: int) -> bool:
        """False: it could not be told."""
        lease = Lease(self._boot_id, self._next_seq(), deadline, kill_within_s, arming)
        try:
            self._door.tell_lease(lease)
        except OSError as error:
            log.error("deadline not told", error=str(error))  # noqa: TRY400 - the error says it all
            return False
        turned = arming != self.lease.arming or (deadline is None) != self.disarmed
        self.lease, self._lease_at = lease, self._clock.boot()
        if turned:
            self._armed_seq = lease.seq
        return True

    def tell_list(self, targets: Mapping[Uid, Target]) -> None:
        seq = self._next_seq()
        kill_list = KillList(self._boot_id, seq, self._cgroup_root, tuple(targets.values()))
        try:
            self._door.tell_list(kill_list)
        except OSError as error:
            log.error("kill list not told", error=str(error))  # noqa: TRY400 - as above
            return
        kept = {uid for uid, target in targets.items() if self.targets.get(uid) == target}
        self._since = {uid: self._since[uid] if uid in kept else seq for uid in targets}
        self.targets, self._list_seq, self._list_at = dict(targets), seq, self._clock.boot()

    def repair(self) -> None:
        """Notes that are gone, or that a living vefence does not go by as it found none or spoilt ones, are told again."""
        no_lease, no_list = self._door.lacks()
        if no_lease or self._unread(self.lease.seq, self._lease_at, by_lease=True):
            self._lease_at = self._clock.boot()
            self._again(lambda: self._door.tell_lease(self.lease))
        if self._list_seq and (no_list or self._unread(self._list_seq, self._list_at)):
            self._list_at = self._clock.boot()
            self._again(lambda: self._door.tell_list(self._list()))

    def _unread(self, seq: int, told_at: float, *, by_lease: bool = False) -> bool:
        """Vefence lives, and still does not go by the note of this number."""
        beat = self.beat
        if beat is None or not self.live or beat.at < told_at + REPAIR_AFTER_S:
            return False
        return (beat.lease_seq if by_lease else beat.list_seq) < seq

    def _again(self, tell: Callable[[], None]) -> None:
        log.warning("vefence is told again", ves=len(self.targets))
        with suppress(OSError):
            tell()

    def _list(self) -> KillList:
        targets = tuple(self.targets.values())
        return KillList(self._boot_id, self._list_seq, self._cgroup_root, targets)

    def _next_seq(self) -> int:
        """Above all that any agent of this boot has given, even if its notes are lost."""
        self._seq = max(self._seq + 1, int(self._clock.boot() * 1e6))
        return self._seq
