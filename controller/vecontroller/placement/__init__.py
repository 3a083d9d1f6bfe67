"""Which VE goes to which host: pure, deterministic, explained."""

from vecontroller.placement.board import Board
from vecontroller.placement.capacity import Capacity, Loss, capacity, more
from vecontroller.placement.explain import explain
from vecontroller.placement.ledger import committed, free, given, host_rows, taints_of
from vecontroller.placement.model import (
    Assignment,
    Explanation,
    HostRow,
    Plan,
    Refusal,
    Request,
    Strategy,
    Verdict,
)
from vecontroller.placement.plan import place, plan
from vecontroller.placement.refusal import shortage
from vecontroller.placement.requests import host_of, request
from vecontroller.placement.rules import HostClass, Rules
from vecontroller.placement.turns import change

__all__ = [
    "Assignment",
    "Board",
    "Capacity",
    "Explanation",
    "HostClass",
    "HostRow",
    "Loss",
    "Plan",
    "Refusal",
    "Request",
    "Rules",
    "Strategy",
    "Verdict",
    "capacity",
    "change",
    "committed",
    "explain",
    "free",
    "given",
    "host_of",
    "host_rows",
    "more",
    "place",
    "plan",
    "request",
    "shortage",
    "taints_of",
]
