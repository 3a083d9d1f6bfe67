"""What a watch tells."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE


class ChangeKind(Enum):
    ADDED = auto()
    CHANGED = auto()
    DELETED = auto()
    # The first snapshot is complete; told once.
    SYNCED = auto()


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a VE; for SYNCED the VE is empty."""

    kind: ChangeKind
    ve: "VE"
