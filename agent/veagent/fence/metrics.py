"""What Prometheus gets of a host's fence, by its agent: vefence itself talks to nobody."""

from math import inf

from veagent.fence.desk import FenceNumbers
from veapi.series import Family, Kind, Labels, Page

_HOST = ("host",)
LIVE = Family(
    "verack_agent_fence_live",
    Kind.GAUGE,
    "Whether the host's vefence runs; without it the host takes no fenced VEs.",
    _HOST,
)
LEFT = Family(
    "verack_agent_fence_deadline_seconds",
    Kind.GAUGE,
    "Time until fenced VEs may not run here any more, negative once it has passed; left out while fencing is off.",
    _HOST,
)
LISTED = Family("verack_agent_fence_ves", Kind.GAUGE, "VEs that vefence is told to mind.", _HOST)
KILLS = Family(
    "verack_agent_fence_kills_total",
    Kind.COUNTER,
    "Processes that vefence has killed since it began.",
    _HOST,
)
CUTS = Family(
    "verack_agent_fence_cards_cut_total",
    Kind.COUNTER,
    "Network cards that vefence has taken down since it began, as a VE did not die in time.",
    _HOST,
)
FENCE_FAMILIES = (LIVE, LEFT, LISTED, KILLS, CUTS)


def write(page: Page, host: Labels, numbers: FenceNumbers | None) -> None:
    """None: nothing is known of any vefence."""
    if numbers is None:
        for family in FENCE_FAMILIES:
            page.family(family, [])
        return
    beat = numbers.beat
    page.family(LIVE, [(host, int(numbers.live))])
    page.family(LEFT, [(host, numbers.left_s)] if numbers.left_s != inf else [])
    page.family(LISTED, [(host, numbers.listed)])
    page.family(KILLS, [(host, beat.kills)] if beat else [])
    page.family(CUTS, [(host, beat.cut)] if beat else [])
