"""Asks the API as people do, until it is back: a program, as the controllers' addresses are in a namespace of their own.

For each line on stdin, a time of the monotonic clock, it prints a line: seconds from then until a read was answered, until
a write was done, and until all hosts were Ready. Each try is a new connection, as each vectl is.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable

from veapi.errors import VerackError
from vectl.client import Client
from vectl.context import Context, load

Ask = Callable[[Client], Awaitable[bool]]


async def since(began: float, context: Context, ask: Ask) -> float:
    """Seconds until `ask` says yes."""
    while True:
        try:
            async with Client.connect(context) as client:
                if await ask(client):
                    return time.monotonic() - began
        except VerackError as error:
            print(error.message, file=sys.stderr)
        await asyncio.sleep(0.02)


async def reads(client: Client) -> bool:
    await client.list_ves()
    return True


async def writes(client: Client) -> bool:
    await client.create_project(f"p{time.monotonic_ns()}")
    return True


async def sees_hosts(client: Client) -> bool:
    return all(host.state == "Ready" for host in await client.hosts())


def main() -> None:
    context = load(environ=os.environ)
    for line in sys.stdin:
        began = float(line)

        async def measured(began: float = began) -> list[float]:
            asked = (since(began, context, ask) for ask in (reads, writes, sees_hosts))
            return await asyncio.gather(*asked)

        print(*asyncio.run(measured()), flush=True)


if __name__ == "__main__":
    main()
