"""What Prometheus gets of groups."""

from collections.abc import Mapping

from veapi.series import Family, Kind, Page, labels
from vecontroller.groups.member import Key
from vecontroller.groups.state import GroupState, Shown

SHOWN_LIMIT = 1000
"""Groups with series of their own, the first by project and name; all of them are counted."""
_GROUP = ("group", "project")
GROUPS = Family("verack_groups", Kind.GAUGE, "Groups.")
STATE = Family(
    "verack_group_state",
    Kind.STATE_SET,
    "State of a group as vectl shows it: 1 for the one that holds.",
    (*_GROUP, "state"),
)
WANTED = Family("verack_group_desired_ves", Kind.GAUGE, "VEs that the group shall have.", _GROUP)
VES = Family(
    "verack_group_ves", Kind.GAUGE, "VEs that it has, without those that are being deleted.", _GROUP
)
UPDATED = Family(
    "verack_group_updated_ves", Kind.GAUGE, "VEs of it that have the newest revision.", _GROUP
)
AVAILABLE = Family(
    "verack_group_available_ves",
    Kind.GAUGE,
    "VEs of it that run as asked, and have for long enough.",
    _GROUP,
)
FAMILIES = (GROUPS, STATE, WANTED, VES, UPDATED, AVAILABLE)
_STATES = tuple(state.value for state in GroupState)


def render(page: Page, groups: Mapping[Key, tuple[int, Shown]]) -> None:
    """`groups`: the wanted number of VEs, and how each group is."""
    page.family(GROUPS, [("", len(groups))])
    some = sorted(groups.items())[:SHOWN_LIMIT]
    of = {key: labels(group=key[1], project=key[0]) for key, _ in some}
    page.state_set(STATE, _STATES, [(of[key], shown.state.value) for key, (_, shown) in some])
    page.family(WANTED, [(of[key], wanted) for key, (wanted, _) in some])
    page.family(VES, [(of[key], shown.ves) for key, (_, shown) in some])
    page.family(UPDATED, [(of[key], shown.updated) for key, (_, shown) in some])
    page.family(AVAILABLE, [(of[key], shown.available) for key, (_, shown) in some])
