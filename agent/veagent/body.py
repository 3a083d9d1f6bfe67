"""What there is of one VE on this host: its root and, while it runs, its instance. Its worker alone changes it."""

from dataclasses import dataclass

from veagent.ports import Instance
from veagent.reconcile import Rates


@dataclass(frozen=True, slots=True)
class RootRefused:
    """What the root of this number was to be made of is not here."""

    seq: int
    message: str


@dataclass(slots=True)
class Body:
    """`root`: it is whole; `remains`: a part of one, or snapshots without one. `rates`: of its card, and `cpus`: those that it
    may use; None: not known.

    `started_boot`: when we started it, in boot time. `oom_seen`: the kills that the runtime had counted when it last told.
    What was refused is not tried again before its user says something new.
    """

    root: bool = False
    remains: bool = False
    instance: Instance | None = None
    frozen: bool = False
    rates: Rates | None = None
    cpus: tuple[int, ...] | None = None
    started_boot: float = float("-inf")
    oom_seen: int = 0
    disk_refused: int | None = None
    root_refused: RootRefused | None = None

    def began(self, instance: Instance, now: float, cpus: tuple[int, ...]) -> None:
        """It was started: with a new card, that has no rates yet."""
        self.instance = instance
        self.frozen = False
        self.rates = (0, 0)
        self.cpus = cpus
        self.started_boot = now

    def down(self) -> None:
        self.instance = None
        self.frozen = False

    def forgive(self) -> None:
        """There is a newer wish."""
        self.disk_refused = None
        self.root_refused = None

    @property
    def empty(self) -> bool:
        return self.instance is None and not self.root and not self.remains
