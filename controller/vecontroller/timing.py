"""The rule that the cluster's times must keep. Pure."""

from veapi.errors import InvalidInput
from veapi.model import Timing

CLOCK_RATE_ERROR = 0.01
"""Of two clocks that count the same second."""


def check(timing: Timing) -> None:
    """InvalidInput, with the numbers, unless a fenced host is surely quiet before its VEs are moved: F/(1-r) + K < M/(1+r)."""
    for name in ("heartbeat_s", "fence_after_s", "kill_within_s", "move_after_s"):
        seconds = getattr(timing, name)
        if not 0 < seconds < float("inf"):
            raise InvalidInput(
                f"timing.{name}: {seconds:g} is no time", hint="give seconds above 0"
            )
    if timing.heartbeat_s * 2 > timing.fence_after_s:
        raise InvalidInput(
            f"timing: a host fences itself after {timing.fence_after_s:g} s, "
            f"and sends a heartbeat each {timing.heartbeat_s:g} s",
            hint="let at least two heartbeats be sent in fence_after_s",
        )
    quiet_s = timing.fence_after_s / (1 - CLOCK_RATE_ERROR) + timing.kill_within_s
    moved_s = timing.move_after_s / (1 + CLOCK_RATE_ERROR)
    if quiet_s >= moved_s:
        raise InvalidInput(
            f"timing: a host is quiet after {quiet_s:.2f} s at the latest, "
            f"but its VEs may be moved after {moved_s:.2f} s",
            hint="raise move_after_s, or lower fence_after_s or kill_within_s",
        )
