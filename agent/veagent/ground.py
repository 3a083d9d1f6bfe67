"""What all workers of a host stand on."""

from collections.abc import Callable
from dataclasses import dataclass

from veagent.cpusets import Cpusets
from veagent.events import words
from veagent.fence.desk import FenceDesk
from veagent.ids import IdRanges
from veagent.imagefetch import ImageKeeper
from veagent.ledger import Ledger
from veagent.ports import Instance, Roots, Runtime, VENetwork
from veagent.slots import Slots
from veapi.clock import Clock
from veapi.errors import VerackError
from veapi.model import Uid


@dataclass(frozen=True, slots=True)
class Ground:
    """`cpusets`: which processors each VE uses.

    `changed` is told of every VE that may have another status. `id_base_of`: of a running VE, None when unknown.
    """

    host: str
    boot_id: str
    runtime: Runtime
    roots: Roots
    network: VENetwork
    images: ImageKeeper
    ledger: Ledger
    ids: IdRanges
    slots: Slots
    cpusets: Cpusets
    fence: FenceDesk
    clock: Clock
    changed: Callable[[Uid], None]
    id_base_of: Callable[[Instance], int | None]

    def refuses(self) -> str:
        """Why no new root can be made now; empty when one can."""
        try:
            return self.roots.refuses()
        except VerackError as error:
            return words(error)
