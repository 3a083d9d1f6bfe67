"""Waiting until what was purged is gone. No watch tells of deleted VEs, so the controller is asked again and again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from veapi.errors import TimedOut

if TYPE_CHECKING:
    from vectl.client import Client

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
STANDS = "The request stands: `vectl list --deleted -A` shows it until its host has removed it."


async def is_there(client: "Client", uid: str, name: str) -> bool:
    """Whether anything of it is left, deleted or on its way to be. `name`: the one that it had last.

    A VE that lives may have left a root on a host that was lost: of that only the root is asked for.
    """
    alive, _ = await client.list_ves(names=[name], all_projects=True)
    alive = [ve for ve in alive if ve.HasField("delete_requested_at")]
    kept = await client.deleted(names=[name], all_projects=True)
    return any(ve.uid == uid for ve in (*alive, *kept))


async def until_gone(
    there: Callable[[], Awaitable[bool]], *, what: str, host: str, timeout_s: float
) -> None:
    """TimedOut when it is there for longer; what is there no more at the first look is gone."""
    try:
        async with asyncio.timeout(timeout_s):
            pause_s = _FIRST_PAUSE_S
            while await there():
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    except TimeoutError:
        raise TimedOut(
            f"{what}: not gone within {timeout_s:g} s",
            hint=f"the request stands; its host removes it: `vectl host show {host}`",
        ) from None
