"""What would happen to VEs if hosts went or came, or manifests were applied: pure, by the code that places."""

from vecontroller.whatif.model import (
    AddedHosts,
    Change,
    Changes,
    Fate,
    HostChange,
    Known,
    Outcome,
    World,
)
from vecontroller.whatif.simulate import simulate
from vecontroller.whatif.world import world_of

__all__ = [
    "AddedHosts",
    "Change",
    "Changes",
    "Fate",
    "HostChange",
    "Known",
    "Outcome",
    "World",
    "simulate",
    "world_of",
]
