"""Which processors each VE may use, so that its `nproc` says how many it has: pure of input and output.

A quota of 1.5 cores spread over 64 processors makes a VE's programs start 64 threads that are then throttled together. So
a VE gets as many processors as its quota fills, rounded up, on those with the least committed. VEs come and go: a place
is kept as long as it is not much worse than another, and at most two VEs move for each that comes, goes or changes.
"""

from collections.abc import Callable, Sequence

from veapi.model import Uid

CORE_MILLIS = 1000
MOVES_AT_ONCE = 2


class Cpusets:
    """`cpus`: processors of the host that VEs may use. Not `enabled`: nobody has a place. `listen` to hear who moved."""

    def __init__(self, cpus: Sequence[int], *, enabled: bool = True) -> None:
        self.cpus = tuple(sorted(cpus))
        self._enabled = enabled and bool(cpus)
        self._millis: dict[Uid, int] = {}
        self._places: dict[Uid, tuple[int, ...]] = {}
        self._load = dict.fromkeys(self.cpus, 0.0)
        self._moved: Callable[[Uid], None] = lambda _: None

    def listen(self, moved: Callable[[Uid], None]) -> None:
        """`moved` is called with each VE that another one made move."""
        self._moved = moved

    def of(self, uid: Uid) -> tuple[int, ...]:
        """Empty: all, or it has no place."""
        return self._places.get(uid, ())

    def load(self, cpu: int) -> float:
        """Thousandths of a core that are committed there."""
        return self._load[cpu]

    def place(self, uid: Uid, cpu_millis: int, *, held: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Gives it a place, or adapts the one that it has (or `held` when it was adopted) to its quota."""
        if not self._enabled or self._millis.get(uid) == cpu_millis:
            return self.of(uid)
        before = self._take_out(uid) or tuple(cpu for cpu in held if cpu in self._load)
        self._millis[uid] = cpu_millis
        self._put(uid, self._choose(before, self._size(cpu_millis)))
        self._balance(uid)
        return self.of(uid)

    def ensure(self, uid: Uid, cpu_millis: int) -> None:
        """Gives it a place if it has none."""
        if uid not in self._millis:
            self.place(uid, cpu_millis)

    def release(self, uid: Uid) -> None:
        """It does not run any more."""
        if uid in self._millis:
            self._take_out(uid)
            del self._millis[uid]
            self._balance(uid)

    def _size(self, cpu_millis: int) -> int:
        """Without a quota: all."""
        wanted = -(-cpu_millis // CORE_MILLIS) if cpu_millis > 0 else len(self.cpus)
        return min(wanted, len(self.cpus))

    def _choose(self, before: tuple[int, ...], size: int) -> tuple[int, ...]:
        """The least loaded; of those that it has, as many as fit."""
        kept = sorted(before, key=self._order)[:size]
        others = sorted((cpu for cpu in self.cpus if cpu not in kept), key=self._order)
        return tuple(sorted([*kept, *others[: size - len(kept)]]))

    def _order(self, cpu: int) -> tuple[float, int]:
        return (self._load[cpu], cpu)

    def _share(self, uid: Uid) -> float:
        return self._millis[uid] / len(self._places[uid])

    def _put(self, uid: Uid, place: tuple[int, ...]) -> None:
        self._places[uid] = place
        for cpu in place:
            self._load[cpu] += self._share(uid)

    def _take_out(self, uid: Uid) -> tuple[int, ...]:
        place = self._places.get(uid, ())
        for cpu in place:
            self._load[cpu] -= self._share(uid)
        self._places.pop(uid, None)
        return place

    def _balance(self, cause: Uid) -> None:
        for _ in range(MOVES_AT_ONCE):
            found = self._best_move()
            if found is None:
                return
            uid, source, target = found
            place = self._take_out(uid)
            self._put(uid, tuple(sorted({*place, target} - {source})))
            if uid != cause:
                self._moved(uid)

    def _best_move(self) -> tuple[Uid, int, int] | None:
        """From the most to the least loaded, what brings them nearest without turning them round; None: none does."""
        source = max(self.cpus, key=self._order)
        target = min(self.cpus, key=self._order)
        room = (self._load[source] - self._load[target]) / 2
        movable = [
            (self._share(uid), uid)
            for uid, place in self._places.items()
            if source in place and target not in place and 0 < self._share(uid) <= room
        ]
        return (max(movable)[1], source, target) if movable else None
