"""vectl apply and diff."""

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput, VerackError
from vectl import manifest, options
from vectl.follow import Goal
from vectl.groupasks import apply_groups, diff_groups, split
from vectl.mutate import AT_ONCE, OUTCOMES, Ask, Waiting, carry_out
from vectl.planned import apply_planned
from vectl.session import Ended, Session, pass_session
from vectl.text import complain, one_line
from vectl.wanted import Wanted

if TYPE_CHECKING:
    from veapi.v1.api_pb2 import ApplyVEResponse
    from veapi.v1.group_pb2 import ApplyGroupResponse
    from veapi.v1.types_pb2 import VE
    from vectl.client import Client

    Answer = ApplyVEResponse | ApplyGroupResponse | VerackError

_UNCHANGED = 1
"""Of OUTCOMES."""

_file_option = click.option(
    "-f", "--file", "files", multiple=True, required=True, help="Manifest: file, folder or -."
)


@options.command("apply")
@click.option("-f", "--file", "files", multiple=True, help="Manifest: file, folder or -.")
@click.option("--plan", "plan", default="", help="Do exactly what that file of `vectl plan` says.")
@options.timeout_option()
@options.detach_option
@pass_session
def apply(
    session: Session, *, files: tuple[str, ...], plan: str, timeout_s: float, detach: bool
) -> None:
    """Make VEs and groups as manifests say: create, change, or find nothing to do; and wait until it is so.

    With --plan: what the plan says, on its hosts, or nothing if the cluster has moved on (exit code 4).
    """
    if bool(files) == bool(plan):
        raise InvalidInput("apply wants -f FILE or --plan FILE", hint="vectl apply -f web.yaml")
    if plan:
        apply_planned(session, plan, timeout_s=timeout_s, detach=detach)
        return
    ves, groups = split(manifest.read(files, sys.stdin.buffer))
    how = Waiting(timeout_s, detach, all_projects=any(one.project for one in ves))

    async def work(client: "Client") -> None:
        code = 0
        try:
            if ves:
                await carry_out(client, session, [_Apply(client, one).ask() for one in ves], how)
        except Ended as ended:
            code = ended.code
        later = await apply_groups(client, groups, timeout_s=timeout_s, detach=detach)
        if code or later:
            raise Ended(code or later)

    session.run(work)


class _Apply:
    """One VE of a manifest; what became of it is known after the call."""

    def __init__(self, client: "Client", wanted: Wanted) -> None:
        self._client = client
        self._wanted = wanted
        self._outcome = _UNCHANGED

    def ask(self) -> Ask:
        return Ask(
            self._wanted.name,
            self._call,
            Goal.SETTLED,
            lambda: OUTCOMES.get(self._outcome, "applied"),
        )

    async def _call(self) -> "VE":
        response = await self._client.apply(self._wanted)
        self._outcome = response.outcome
        return response.ve


@options.command("diff")
@_file_option
@pass_session
def diff(session: Session, *, files: tuple[str, ...]) -> None:
    """What apply would change; nothing is changed. Exit code 0: nothing, 1: something."""
    ves, groups = split(manifest.read(files, sys.stdin.buffer))
    names = [f"ve/{one.name}" for one in ves] + [f"group/{one.name}" for one in groups]

    async def work(client: "Client") -> "list[Answer]":
        return [*await _dry_runs(client, ves), *await diff_groups(client, groups)]

    code = 0
    for name, answer in zip(names, session.run(work), strict=True):
        if isinstance(answer, VerackError):
            complain(answer.message, answer.hint)
            code = answer.exit_code if code in (0, 1) else code
        elif answer.outcome != _UNCHANGED:
            code = code or 1
            for line in difference(name, answer):
                click.echo(line)
    if code:
        raise Ended(code)


async def _dry_runs(
    client: "Client", wanted: Sequence[Wanted]
) -> "list[ApplyVEResponse | VerackError]":
    turn = asyncio.Semaphore(AT_ONCE)

    async def ask(one: Wanted) -> "ApplyVEResponse | VerackError":
        async with turn:
            try:
                return await client.apply(one, dry_run=True)
            except VerackError as error:
                return error

    return list(await asyncio.gather(*(ask(one) for one in wanted)))


def difference(name: str, answer: "ApplyVEResponse | ApplyGroupResponse") -> list[str]:
    """`name`: e.g. ve/web. A title, then a line with - for what is and one with + for what would be."""
    lines = [f"{name}: would be {OUTCOMES.get(answer.outcome, 'changed')}"]
    for change in answer.changes:
        if change.before:
            lines.append(one_line(f"- {change.field}: {change.before}"))
        if change.after:
            lines.append(one_line(f"+ {change.field}: {change.after}"))
    return lines
