"""Who may serve as a host: pure decisions about one Hello, and the loop that writes what follows from it.

A certificate says which host calls, but not which machine: a disk may be cloned, a certificate copied. So an agent also tells
a random id of its machine and the kernel's boot id. While one machine is heard, no other gets in; and a machine that is not
the one that the store knows gets in only when an operator says so.

An operator's word that a host is off, or that another machine may take its place, ends when it is heard again: it may run VEs
from then on. One that turns out to have run all the time is let in at
once, as only its set makes it stop what is no longer its own; but it takes nothing new until an operator has looked at it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from veapi.clock import Clock
from veapi.errors import Conflict, Denied
from veapi.model import HostFacts, HostName, HostSpec
from vecontroller.ports import Commits, Mirrored
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put, Write
from vecontroller.view import View
from vecontroller.writer import LostRace

log = structlog.get_logger()
FRESH_S = 3.0
"""A machine that was heard within this is running."""
ATTEMPTS = 5
WAS_RUNNING = "it was vouched to be off while it ran"


@dataclass(frozen=True, slots=True)
class Machine:
    """`id`: kept in the agent's state; empty: it told none."""

    id: str
    boot_id: str

    def same_run(self, other: "Machine") -> bool:
        """Whether it may be the same machine, without a reboot between; an id that was not told is no proof."""
        return self.boot_id == other.boot_id and self.may_be(other)

    def may_be(self, other: "Machine") -> bool:
        return not (self.id and other.id) or self.id == other.id


def machine_of(facts: HostFacts) -> Machine:
    return Machine(facts.machine_id, facts.boot_id)


class Guest:
    """A machine whose session was let in. `heard`: boot time of the last word from it."""

    def __init__(self, machine: Machine, heard: float) -> None:
        self.machine = machine
        self.heard = heard


def admitted(
    host: HostName, spec: HostSpec, known: HostFacts | None, comes: Machine, running: Machine | None
) -> HostSpec:
    """What operators say of the host, as it is once this machine is in. Raises Denied.

    `known`: what the store knows of the host; `running`: the machine that serves as it now, if one is heard.
    """
    if spec.removed_at is not None:
        raise Denied(
            f"host {host} was removed from the cluster",
            hint=f"`vectl host add {host}` lets it come again",
        )
    _refuse_second(host, comes, running)
    stored = machine_of(known) if known is not None else None
    if stored is not None and not comes.may_be(stored) and not spec.replaced:
        raise Denied(
            f"host {host} is another machine: {stored.id}, last booted as {stored.boot_id}; "
            f"this is {comes.id}, booted as {comes.boot_id}",
            hint=f"is a certificate used twice? when it took the other's place: `vectl host replace {host}`",
        )
    return _welcomed(spec, stored, comes)


def _refuse_second(host: HostName, comes: Machine, running: Machine | None) -> None:
    if running is not None and not comes.same_run(running):
        raise Denied(
            f"host {host} is running: machine {running.id or 'unknown'}, booted as {running.boot_id}; "
            f"this is machine {comes.id or 'unknown'}, booted as {comes.boot_id}",
            hint="is a certificate used twice? after a reboot, the host gets in within seconds",
        )


def _welcomed(spec: HostSpec, stored: Machine | None, comes: Machine) -> HostSpec:
    after = msgspec.structs.replace(
        spec,
        powered_off_at=None,
        powered_off_by="",
        replaced=False,
    )
    if spec.powered_off_at is None or stored is None or not comes.same_run(stored):
        return after
    by = f" by {spec.powered_off_by}" if spec.powered_off_by else ""
    return msgspec.structs.replace(after, cordoned=True, cordon_reason=WAS_RUNNING + by)


def shut_out(view: View, host: HostName) -> str:
    """Why a session that is open may not go on: operators have said so since. Empty: it may."""
    held = view.host_specs.get(host)
    if held is None:
        return ""
    if held.value.removed_at is not None:
        return f"host {host} was removed from the cluster"
    if held.value.powered_off_at is not None:
        return f"host {host} was vouched to be off; it is to begin anew"
    return ""


class Admission:
    """Remembers who is in, under this leader."""

    def __init__(
        self, mirror: Mirrored, writer: Commits, clock: Clock, *, new_op_id: Callable[[], str]
    ) -> None:
        self._mirror = mirror
        self._writer = writer
        self._clock = clock
        self._new_op_id = new_op_id
        self._guests: dict[HostName, Guest] = {}

    async def admit(self, host: HostName, facts: HostFacts) -> Guest:
        """Lets the machine in, once the store says what follows. Raises Denied, and what a write raises."""
        comes = machine_of(facts)
        for _ in range(ATTEMPTS):
            held = self._mirror.view.host_specs.get(host)
            spec = held.value if held is not None else HostSpec()
            after = self._judged(host, spec, comes)
            if after == spec:
                guest = self._guests[host] = Guest(comes, self._clock.boot())
                return guest
            revision = held.mod_revision if held is not None else 0
            await self._write(host, comes, spec, after, revision)
        raise Conflict(f"what is said of host {host} changes all the time", hint="it tries again")

    def _judged(self, host: HostName, spec: HostSpec, comes: Machine) -> HostSpec:
        known = self._mirror.view.hosts.get(host)
        guest = self._guests.get(host)
        fresh = guest is not None and self._clock.boot() - guest.heard < FRESH_S
        running = guest.machine if guest is not None and fresh else None
        try:
            return admitted(host, spec, known.value if known else None, comes, running)
        except Denied as denied:
            log.warning("host refused", host=host, why=denied.message)
            raise

    async def _write(
        self, host: HostName, comes: Machine, spec: HostSpec, after: HostSpec, revision: int
    ) -> None:
        key, op_id = keys.host_spec(host), self._new_op_id()
        value = values.encode_host_spec(msgspec.structs.replace(after, op_id=op_id))
        guards, writes = [Guard(key=key, mod_revision=revision)], [Put(key=key, value=value)]
        known = self._mirror.view.hosts.get(host)
        gone: list[Write] = []
        if known is not None and not comes.may_be(
            machine_of(known.value)
        ):  # of the one that it was
            guards.append(Guard(key=keys.host_status(host), mod_revision=known.mod_revision))
            gone.append(Delete(key=keys.host_status(host)))
        try:
            await self._writer.commit(guards, [*writes, *gone], confirm=(key, op_id))
        except LostRace:
            return
        if after.cordoned and not spec.cordoned:
            log.error(
                "a host ran while it was vouched to be off", host=host, by=spec.powered_off_by
            )

    def guest(self, host: HostName) -> Guest | None:
        return self._guests.get(host)

    def heard(self, host: HostName, guest: Guest | None) -> None:
        """A heartbeat came for who was in when its stream began. Raises Denied or Conflict when it may not count any more."""
        why = shut_out(self._mirror.view, host)
        if why:
            raise Denied(why, hint="the agent dials again")
        current = self._guests.get(host)
        if guest is not None and current is not None and current is not guest:
            raise Conflict(
                f"a newer session of host {host} has replaced this one",
                hint="only one veagent may run with this host's certificate",
            )
        if current is not None:
            current.heard = self._clock.boot()

    def left(self, host: HostName, guest: Guest) -> None:
        """Its session ended."""
        if self._guests.get(host) is guest:
            del self._guests[host]
