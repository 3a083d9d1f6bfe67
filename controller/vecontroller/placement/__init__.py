"""Which VE goes to which host: pure, deterministic, explained."""

from vecontroller.placement.board import Board
from vecontroller.placement.explain import explain
from vecontroller.placement.ledger import committed, free, host_rows
from vecontroller.placement.model import (
    Assignment,
    Explanation,
    HostRow,
    Plan,
    Refusal,
    Request,
    Verdict,
)
from vecontroller.placement.plan import place, plan
from vecontroller.placement.refusal import shortage

__all__ = [
    "Assignment",
    "Board",
    "Explanation",
    "HostRow",
    "Plan",
    "Refusal",
    "Request",
    "Verdict",
    "committed",
    "explain",
    "free",
    "host_rows",
    "place",
    "plan",
    "shortage",
]
