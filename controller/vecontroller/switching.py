"""The switches in the cluster's record: pure changes of it, and the loop that ends what has its time."""

from collections.abc import Callable

import msgspec
import structlog

from veapi.clock import Clock
from veapi.errors import Conflict, Unavailable
from veapi.model import Cluster, HostName, HostState
from vecontroller.leader import NotLeader
from vecontroller.ports import Commits, Mirrored
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put

log = structlog.get_logger()
LOOK_S = 1.0
Change = Callable[[Cluster], Cluster]


def disarmed(record: Cluster, until: float) -> Cluster:
    """Nothing is fenced or moved until then, in Unix seconds; hosts are to confirm it."""
    return msgspec.structs.replace(record, arming=record.arming + 1, disarmed_until=until)


def armed(record: Cluster) -> Cluster:
    """Fences count, on hosts that confirm it. One that is armed stays as it is."""
    if record.disarmed_until is None:
        return record
    return msgspec.structs.replace(record, arming=record.arming + 1, disarmed_until=None)


def resumed(record: Cluster, silent: tuple[HostName, ...]) -> Cluster:
    """VEs are moved again, also from these hosts, which are silent now. Where nothing was stopped it stays as it is."""
    if not record.moves_stopped:
        return record
    return msgspec.structs.replace(record, moves_stopped="", moves_resumed=silent)


def due(record: Cluster, now: float, state: Callable[[HostName], HostState]) -> Cluster:
    """Armed when its time is over; a host that is heard again is not given up any more."""
    lost = tuple(name for name in record.moves_resumed if state(name) is not HostState.READY)
    after = msgspec.structs.replace(record, moves_resumed=lost)
    ended = record.disarmed_until is not None and record.disarmed_until <= now
    return armed(after) if ended else after


class Switching:
    """Decides from the record alone, so that it does not matter who led when it was written."""

    def __init__(
        self,
        mirror: Mirrored,
        writer: Commits,
        clock: Clock,
        *,
        state: Callable[[HostName], HostState],
        new_op_id: Callable[[], str],
    ) -> None:
        self._mirror = mirror
        self._writer = writer
        self._clock = clock
        self._state = state
        self._new_op_id = new_op_id

    async def run(self) -> None:
        """For ever; raises NotLeader when it is no longer ours to decide."""
        while True:
            await self.look_once()
            await self._clock.sleep(LOOK_S)

    async def look_once(self) -> None:
        """What could not be written is due again at the next look."""
        held = self._mirror.view.cluster
        if held is None:
            return
        after = due(held.value, self._clock.wall(), self._state)
        if after == held.value:
            return
        op_id = self._new_op_id()
        value = values.encode_cluster(msgspec.structs.replace(after, op_id=op_id))
        try:
            await self._writer.commit(
                [Guard(key=keys.CLUSTER, mod_revision=held.mod_revision)],
                [Put(key=keys.CLUSTER, value=value)],
                confirm=(keys.CLUSTER, op_id),
            )
        except NotLeader:
            raise
        except (Conflict, Unavailable) as error:
            log.info("switches not set yet", error=error.message)
            return
        if after.arming != held.value.arming:
            log.info("cluster armed again", arming=after.arming)
