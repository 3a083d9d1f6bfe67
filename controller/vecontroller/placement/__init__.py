"""Which VE goes to which host: pure, deterministic, explained."""

from vecontroller.placement.ledger import committed, host_rows
from vecontroller.placement.model import Assignment, HostRow, Plan, Refusal, Request
from vecontroller.placement.plan import plan

__all__ = ["Assignment", "HostRow", "Plan", "Refusal", "Request", "committed", "host_rows", "plan"]
