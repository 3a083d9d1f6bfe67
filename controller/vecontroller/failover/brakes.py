"""What holds moves back though they would be safe: pure. Many silent hosts at once are our trouble, not theirs."""

from collections.abc import Collection, Mapping, Sequence

from veapi.model import HostName, Placement

STARTS_A_SECOND = 20
"""Of moved VEs on one host."""
WITHIN_S = 3600.0
FIRST_DELAY_S = 60.0
LONGEST_DELAY_S = 900.0
FREE_MOVES = 1
"""Within the hour; after these each one makes the next wait for longer."""
HOST_FLAPS = 2
HOST_PAUSE_S = 600.0


def storm(known: Collection[HostName], silent: Collection[HostName]) -> str:
    """Why nothing may be moved: half of the hosts that were ready within the hour, or more, are silent at once. Else empty."""
    quiet = set(silent) & set(known)
    if not quiet or 2 * len(quiet) < len(set(known)):
        return ""
    names = ", ".join(sorted(quiet)[:5]) + (" and others" if len(quiet) > 5 else "")
    return f"{len(quiet)} of {len(set(known))} hosts fell silent at once ({names})"


def damped_s(placement: Placement, now: float) -> float:
    """Seconds that a VE still waits, after `now` (Unix seconds), as it was moved often within the hour."""
    lately = [stay.ended_at for stay in placement.past if 0 <= now - stay.ended_at < WITHIN_S]
    if len(lately) <= FREE_MOVES:
        return 0.0
    delay = min(FIRST_DELAY_S * 2.0 ** (len(lately) - FREE_MOVES - 1), LONGEST_DELAY_S)
    return max(0.0, max(lately) + delay - now)


def flaps(came_back: Sequence[float]) -> str:
    """Why a host takes no moved VEs now; `came_back`: how many seconds ago it was heard again after each silence."""
    if len(came_back) < HOST_FLAPS or min(came_back) > HOST_PAUSE_S:
        return ""
    return f"it fell silent {len(came_back)} times within the hour"


class Starts:
    """Counts starts on each host, so that no more than 20 a second are asked of it. Times by the boot clock."""

    def __init__(self) -> None:
        self._at: dict[HostName, list[float]] = {}

    def room(self, host: HostName, now: float) -> int:
        """How many more it may be given now."""
        recent = [at for at in self._at.get(host, ()) if now - at < 1.0]
        self._at[host] = recent
        return STARTS_A_SECOND - len(recent)

    def take(self, counts: Mapping[HostName, int], now: float) -> None:
        for host, count in counts.items():
            self._at.setdefault(host, []).extend([now] * count)
