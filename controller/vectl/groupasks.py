"""Asking for changes of groups, waiting until they are done, and saying how each one ended."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from veapi.errors import NotFound, VerackError
from vectl import options
from vectl.groupwait import describe, follow, follow_end
from vectl.mutate import AT_ONCE, OUTCOMES, say
from vectl.session import Ended, Session
from vectl.wanted import Wanted, WantedGroup

if TYPE_CHECKING:
    from veapi.v1.group_pb2 import ApplyGroupResponse, Group
    from vectl.client import Client
    from vectl.groupcalls import Groups


def split(found: "Sequence[Wanted | WantedGroup]") -> tuple[list[Wanted], list[WantedGroup]]:
    ves = [each for each in found if isinstance(each, Wanted)]
    return ves, [each for each in found if isinstance(each, WantedGroup)]


def ask_and_wait(
    session: Session,
    name: str,
    ask: "Callable[[Groups], Awaitable[Group]]",
    done: str,
    *,
    timeout_s: float,
    detach: bool,
) -> None:
    """One request; prints how it ended. Raises what went wrong."""

    async def work(client: "Client") -> None:
        from vectl.groupcalls import Groups  # noqa: PLC0415  # brings grpc

        groups = Groups(client)
        group = await ask(groups)
        session.stands = f"The request for group {name} stands: see `vectl group show {name}`."
        if not detach:
            group = await follow(groups.watch(name), name, timeout_s=timeout_s)
        click.echo(f"group/{name} {done}: {describe(group)}".replace(" : ", ": "))

    session.run(work)


async def apply_groups(
    client: "Client", wanted: Sequence[WantedGroup], *, timeout_s: float, detach: bool
) -> int:
    """All together; prints how each ended. The exit code of the first failure, or 0."""
    from vectl.groupcalls import Groups  # noqa: PLC0415  # brings grpc

    groups, turn = Groups(client), asyncio.Semaphore(AT_ONCE)

    async def one(each: WantedGroup) -> str | VerackError:
        try:
            async with turn:
                answer = await groups.apply(each)
            group, word = answer.group, OUTCOMES.get(answer.outcome, "applied")
            if not detach:
                watch = groups.watch(each.name, each.project)
                group = await follow(watch, each.name, timeout_s=timeout_s)
        except VerackError as error:
            return error
        return f"group/{each.name} {word}: {describe(group)}"

    return say(await asyncio.gather(*(one(each) for each in wanted)))


async def diff_groups(
    client: "Client", wanted: Sequence[WantedGroup]
) -> "list[ApplyGroupResponse | VerackError]":
    """What apply would change."""
    from vectl.groupcalls import Groups  # noqa: PLC0415  # brings grpc

    groups, turn = Groups(client), asyncio.Semaphore(AT_ONCE)

    async def one(each: WantedGroup) -> "ApplyGroupResponse | VerackError":
        try:
            async with turn:
                return await groups.apply(each, dry_run=True)
        except VerackError as error:
            return error

    return list(await asyncio.gather(*(one(each) for each in wanted)))


async def delete_and_wait(
    client: "Client",
    session: Session,
    doomed: Sequence[tuple[str, str]],
    *,
    keep_ves: bool = False,
    purge: bool = False,
    timeout_s: float | None,
    skip_missing: bool = False,
) -> None:
    """Groups by name and project. `timeout_s` None: does not wait. Ended with the code of the first failure."""
    from vectl.groupcalls import Groups  # noqa: PLC0415  # brings grpc

    groups, turn = Groups(client), asyncio.Semaphore(AT_ONCE)

    async def one(name: str, project: str) -> str | VerackError:
        try:
            async with turn:
                await groups.delete(name, project=project, keep_ves=keep_ves, purge=purge)
            session.stands = f"The request for group {name} stands: see `vectl group list`."
            if timeout_s is None:
                return f"group/{name} will be deleted"
            await follow_end(groups.watch(name, project), name, timeout_s=timeout_s)
        except NotFound as error:
            return f"group/{name} is not there" if skip_missing else error
        except VerackError as error:
            return error
        return f"group/{name} deleted"

    code = say(await asyncio.gather(*(one(*each) for each in doomed)))
    if code:
        raise Ended(code)


def complete_group(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of groups that begin like that."""
    del param

    async def names(client: "Client") -> list[str]:
        from vectl.groupcalls import Groups  # noqa: PLC0415  # brings grpc

        return [group.name for group in await Groups(client).list()]

    return options.complete(ctx, names, incomplete)
