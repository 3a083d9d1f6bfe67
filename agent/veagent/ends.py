"""What the end of a VE means that nobody asked for: pure.

A crash or a reboot is answered by a start, at once the first time. A VE that ends again and again right after its
start would burn the host: from the second such end on, starts wait 1, 2, 4 … 60 s.
"""

from dataclasses import dataclass, replace
from typing import assert_never

from veagent.events import end_sentence
from veagent.ports import Ended, EndKind

QUICK_END_S = 5.0
BACKOFF_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`restart`: start it again after `delay_s`. `quick_ends`: how many ends in a row came right after the start."""

    restart: bool
    warning: bool
    reason: str
    sentence: str
    delay_s: float = 0.0
    quick_ends: int = 0

    @property
    def answer(self) -> str:
        """What was done about it, for the event."""
        return "restarted" if self.warning else "started again"

    @property
    def counted(self) -> bool:
        """Whether its restart counts as one of the VE's own."""
        return self.reason in ("Crashed", "Rebooted")


def backoff_s(failures: int) -> float:
    """Wait after the n-th failure in a row, from 1: 1, 2, 4 … 60 s."""
    return float(min(BACKOFF_LIMIT_S, 2 ** min(failures - 1, 10)))


def judge(ended: Ended, *, lived_s: float, quick_ends: int) -> Verdict:
    """`quick_ends` counts those before this one."""
    quick = quick_ends + 1 if lived_s < QUICK_END_S else 0
    delay_s = backoff_s(quick - 1) if quick > 1 else 0.0
    match ended.kind:
        case EndKind.HALT:
            return Verdict(
                restart=False, warning=False, reason="PoweredOff", sentence="it powered itself off"
            )
        case EndKind.REBOOT:
            return Verdict(
                restart=True,
                warning=False,
                reason="Rebooted",
                sentence="it rebooted itself",
                delay_s=delay_s,
                quick_ends=quick,
            )
        case EndKind.CRASH:
            return Verdict(
                restart=True,
                warning=True,
                reason="Crashed",
                sentence=end_sentence(ended),
                delay_s=delay_s,
                quick_ends=quick,
            )
        case _:
            assert_never(ended.kind)


def lost(ended: Ended | None, *, same_boot: bool) -> Verdict:
    """Of a VE that ran when its agent died, and does not now. `ended`: how, when that is known.

    In another boot that counts for nothing: a host that goes down ends its VEs in all kinds of ways.
    """
    if not same_boot:
        return Verdict(
            restart=True, warning=False, reason="HostRestarted", sentence="its host restarted"
        )
    if ended is None or ended.kind is EndKind.CRASH:
        return Verdict(
            restart=True,
            warning=True,
            reason="Crashed",
            sentence="it ended while the agent was away",
        )
    verdict = judge(ended, lived_s=QUICK_END_S, quick_ends=0)
    return replace(verdict, sentence=f"{verdict.sentence} while the agent was away")
