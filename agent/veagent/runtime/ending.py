"""How a VE is ended: asked, killed, or caught half-way through a start that nobody waits for any more."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from veagent.cgroup import Cgroups
from veagent.pidfd import until_ended
from veagent.runtime.adopt import hold, hold_monitor
from veagent.runtime.instance import LxcInstance
from veapi.clock import Clock
from veapi.model import Uid

SETTLE_TIMEOUT_S = 2.0
_SETTLE_TRIES = 10
_SETTLE_PAUSE_S = 0.02
_HEARS_TIMEOUT_S = 1.0
_HEARS_PAUSE_S = 0.02
_KILL_AGAIN_S = 0.2


async def halt(instance: LxcInstance, clock: Clock, *, timeout_s: float) -> bool:
    """Asks init to end; False when it has not within `timeout_s`."""
    began = clock.boot()
    with suppress(TimeoutError):
        async with asyncio.timeout(min(timeout_s, _HEARS_TIMEOUT_S)):
            while not instance.hears():  # noqa: ASYNC110 - the kernel tells nobody of a new handler
                await asyncio.sleep(_HEARS_PAUSE_S)
    instance.ask_to_halt()
    return await ended_within(instance, timeout_s - (clock.boot() - began))


async def kill(instance: LxcInstance, cgroups: Cgroups, *, timeout_s: float) -> bool:
    """Kills init, and all else with it; False when it lives on.

    What does not die at once may be frozen by the VE itself: then everything in it is killed and thawed, again and again
    (what is not frozen could freeze the rest anew).
    """
    instance.kill()
    for _ in range(int(timeout_s / _KILL_AGAIN_S)):
        if await ended_within(instance, _KILL_AGAIN_S):
            return True
        cgroups.kill(instance.uid)
    return False


async def ended_within(instance: LxcInstance, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await instance.ended()
    except TimeoutError:
        return False
    return True


async def end_unfinished(uid: Uid, lxc_path: Path, clock: Clock, *, patience_s: float) -> None:
    """Ends whatever a start has brought to life: lxc-start, the monitor, init.

    A monitor without init may be cleaning up: it is let, for `patience_s`. Two looks must find nothing, as one may miss
    a process that becomes another in that moment.
    """
    unseen = 0
    for _ in range(_SETTLE_TRIES):
        monitor = hold_monitor(uid, lxc_path)
        if monitor is None:
            unseen += 1
            if unseen > 1:
                return
            await asyncio.sleep(_SETTLE_PAUSE_S)
            continue
        unseen = 0
        with monitor:
            instance = hold(uid, monitor.pid, lxc_path, clock)
            if instance is not None:
                instance.kill()
                instance.close()
            if not await until_ended(monitor, timeout_s=patience_s):
                monitor.send(signal.SIGKILL)
                await until_ended(monitor, timeout_s=SETTLE_TIMEOUT_S)
