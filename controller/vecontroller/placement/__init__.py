"""Which VE goes to which host: pure, deterministic, explained."""

from vecontroller.placement.ledger import committed, free, host_rows
from vecontroller.placement.model import Assignment, HostRow, Plan, Refusal, Request
from vecontroller.placement.plan import plan
from vecontroller.placement.refusal import shortage

__all__ = [
    "Assignment",
    "HostRow",
    "Plan",
    "Refusal",
    "Request",
    "committed",
    "free",
    "host_rows",
    "plan",
    "shortage",
]
