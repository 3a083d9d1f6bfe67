"""What fencing makes of a VE's next step: pure."""

from dataclasses import dataclass

from veapi.model import Action, OnHostLoss, SetEntry, Value

AWAITS_LEASE = "AwaitsLease"
NO_FENCE = "NoFence"
ARMING = "Arming"


@dataclass(frozen=True, slots=True)
class FenceOff:
    """The lease ran out: kill it now. Nothing else goes first, and no back-off is waited for."""


@dataclass(frozen=True, slots=True)
class AwaitFence:
    """It may not start now: why, as one word and as a sentence. The desk wakes the worker."""

    reason: str
    message: str


class FenceView(Value, frozen=True, kw_only=True):
    """One VE as the desk sees it. `doomed`: it may not run now. `refusal`: why it may not start; None: it may.

    `armed`: the policy_generation under which vefence has confirmed to hold it; 0: it has not.
    """

    doomed: bool = False
    refusal: AwaitFence | None = None
    armed: int = 0


FREE = FenceView()
"""Of a VE that is not fenced."""


def is_fenced(entry: SetEntry) -> bool:
    """It may be started elsewhere when its host is lost, so it may not outlive the host's lease."""
    return entry.spec.on_host_loss is not OnHostLoss.STAY


def is_to_be_here(entry: SetEntry) -> bool:
    return entry.action in (Action.RUN, Action.FREEZE, Action.STOP)
