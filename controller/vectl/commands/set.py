"""vectl set."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import click

from veapi.errors import InvalidInput
from vectl import options
from vectl.commands.run import stop_timeout_option, times
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.session import Session, pass_session
from vectl.specoptions import spec_options
from vectl.wanted import wire

if TYPE_CHECKING:
    from veapi.v1.api_pb2 import SetVERequest
    from vectl.client import Client

Pairs = Mapping[str, str | None]


@options.command("set")
@options.names_argument
@spec_options(removal=True)
@click.option("--restart", is_flag=True, help="Restart it: for what can't change while it runs.")
@stop_timeout_option
@options.detach_option
@pass_session
def set_(
    session: Session,
    names: tuple[str, ...],
    *,
    restart: bool,
    timeout_s: float | None,
    detach: bool,
) -> None:
    """Change what VEs may have, and wait until their hosts have carried it out.

    Address, variables and command need --restart of a VE that runs. What the host can't do (memory below what is in use) is
    refused with its reason, and exit code 4.
    """
    if not session.asked:
        raise InvalidInput("what is to be set?", hint="e.g. `vectl set web --memory 2G`")
    if len(names) > 1 and "ip" in session.asked:
        raise InvalidInput("--ip: one address is not enough for many", hint="set one at a time")
    grace_s, wait_s = times(timeout_s)

    async def work(client: "Client") -> None:
        changes = _changes(session.asked, restart=restart, stop_timeout_s=grace_s)

        def ask(name: str) -> Ask:
            return Ask(name, lambda: client.set(name, changes), Goal.SETTLED, "set")

        await carry_out(client, session, [ask(name) for name in names], Waiting(wait_s, detach))

    session.run(work)


def _changes(asked: Mapping[str, object], *, restart: bool, stop_timeout_s: int) -> "SetVERequest":
    """The request, but for which VE."""
    from veapi.v1.api_pb2 import SetVERequest  # noqa: PLC0415  # brings protobuf
    from vectl.verbs import spec_message  # noqa: PLC0415  # brings grpc

    fields = wire({key: value for key, value in asked.items() if key not in ("labels", "env")})
    labels, env = (cast("Pairs", asked.get(key, {})) for key in ("labels", "env"))
    return SetVERequest(
        spec=spec_message(fields),
        fields=sorted(fields),
        restart=restart,
        stop_timeout_s=stop_timeout_s,
        labels=_given(labels),
        labels_removed=_removed(labels),
        env=_given(env),
        env_removed=_removed(env),
    )


def _given(pairs: Pairs) -> dict[str, str]:
    return {key: value for key, value in pairs.items() if value is not None}


def _removed(pairs: Pairs) -> list[str]:
    return [key for key, value in pairs.items() if value is None]
