"""The network between processes: delays, cuts in one or both directions, and connections that notice late, or never.

A connection is as TCP: in order, nothing lost while it lives. A cut holds what is sent; after some seconds without a sign of
life both ends give it up, each for itself. A process that dies resets its connections, unless its whole host went down:
then nobody says anything.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from sim.loop import SimLoop
from sim.process import Process

KEEPALIVE_S = (10.0, 13.5)
"""As `veapi.channel` has it: a ping after 10 s, 3 s for its answer."""


@dataclass(frozen=True, slots=True)
class Paces:
    """Seconds. `spike`: how likely a message takes up to `spike_s` longer."""

    base_s: float = 0.0003
    jitter_s: float = 0.001
    spike: float = 0.01
    spike_s: float = 0.3


class Network:
    """By names of nodes. `listeners` take new connections."""

    def __init__(self, loop: SimLoop, rng: Random, paces: Paces) -> None:
        self.loop = loop
        self.rng = rng
        self.paces = paces
        self.listeners: dict[str, Callable[[Connection], None]] = {}
        self.down: set[str] = set()
        """Nodes whose machine is off: they don't even refuse."""
        self.slow: Counter[tuple[str, str]] = Counter()
        """Milliseconds that messages take longer."""
        self._cut: Counter[tuple[str, str]] = Counter()
        self._connections: dict[Connection, None] = {}

    def delay_s(self, source: str, target: str) -> float:
        paces, rng = self.paces, self.rng
        delay = paces.base_s + rng.random() * paces.jitter_s
        if rng.random() < paces.spike:
            delay += rng.random() * paces.spike_s
        return delay + self.slow[source, target] / 1000

    def is_cut(self, source: str, target: str) -> bool:
        return self._cut[source, target] > 0 or source in self.down or target in self.down

    def cut(self, source: str, target: str) -> None:
        self._cut[source, target] += 1
        for connection in list(self._connections):
            if connection.joins(source, target):
                self._notice(connection)

    def heal(self, source: str, target: str) -> None:
        self._cut[source, target] -= 1
        self._flush()

    def heal_all(self) -> None:
        self._cut.clear()
        self.slow.clear()
        self._flush()

    def power_off(self, node: str) -> None:
        self.down.add(node)
        for connection in list(self._connections):
            if node in connection.nodes:
                self._notice(connection)

    def power_on(self, node: str) -> None:
        self.down.discard(node)

    def reset(self, one: str, other: str) -> None:
        """Connections between them break, as by a middle box."""
        for connection in list(self._connections):
            if connection.joins(one, other):
                connection.break_()

    def later(self, delay_s: float, work: Callable[..., None], *args: Any) -> None:
        """Outside of all processes."""
        self.loop.call_later(delay_s, work, *args, context=OUTSIDE)

    def connect(self, process: Process, node: str, target: str) -> "Connection | None":
        """None: it was refused."""
        accept = self.listeners.get(target)
        if accept is None:
            return None
        connection = Connection(self, process, node, target)
        self._connections[connection] = None
        accept(connection)
        return connection

    def forget(self, connection: "Connection") -> None:
        self._connections.pop(connection, None)

    def _flush(self) -> None:
        for connection in list(self._connections):
            connection.flush()

    def _notice(self, connection: "Connection") -> None:
        for end in connection.ends:
            self.later(self.rng.uniform(*KEEPALIVE_S), connection.check, end)


class End:
    """One end of a connection. What arrives is kept until somebody takes it."""

    def __init__(self, connection: "Connection", node: str) -> None:
        self.connection = connection
        self.node = node
        self.received: Callable[[Any], None] = lambda _message: None
        self.broke: Callable[[], None] = lambda: None
        self.open = True
        self.held: deque[Any] = deque()
        """Sent towards it, and on its way for longer than usual: the path is cut."""
        self.free_at = 0.0

    def send(self, message: Any) -> None:
        """To the other end."""
        self.connection.send(self, message)


class Connection:
    """`ends`: who dialled, and who was dialled."""

    def __init__(self, network: Network, process: Process, node: str, target: str) -> None:
        self.network = network
        self.ends = (End(self, node), End(self, target))
        self.nodes = (node, target)
        process.on_death.append(lambda: self.died(self.ends[0]))

    def served_by(self, process: Process) -> None:
        process.on_death.append(lambda: self.died(self.ends[1]))

    def joins(self, one: str, other: str) -> bool:
        return {one, other} == set(self.nodes)

    def send(self, sender: End, message: Any) -> None:
        other = self._other(sender)
        if not sender.open:
            return
        if self.network.is_cut(sender.node, other.node) or other.held:
            other.held.append(message)
            self.network.later(KEEPALIVE_S[1], self.check, sender)
        else:
            self._deliver(sender, other, message)

    def _deliver(self, sender: End, other: End, message: Any) -> None:
        loop = self.network.loop
        arrives = loop.time() + self.network.delay_s(sender.node, other.node)
        other.free_at = arrives = max(arrives, other.free_at + 1e-7)
        loop.call_at(arrives, self._arrive, sender, other, message, context=OUTSIDE)

    def _arrive(self, sender: End, other: End, message: Any) -> None:
        if not other.open:
            return
        if self.network.is_cut(sender.node, other.node):
            other.held.append(message)
            self.network.later(KEEPALIVE_S[1], self.check, sender)
        elif message is BREAK:
            self._break_end(other)
        else:
            other.received(message)

    def flush(self) -> None:
        """The path is whole again: what waited goes on."""
        for sender in self.ends:
            other = self._other(sender)
            if other.held and not self.network.is_cut(sender.node, other.node):
                held = list(other.held)
                other.held.clear()
                for message in held:
                    self._deliver(sender, other, message)

    def check(self, end: End) -> None:
        """Whether there is still no sign of life."""
        other = self._other(end)
        network = self.network
        if network.is_cut(end.node, other.node) or network.is_cut(other.node, end.node):
            self._break_end(end)

    def died(self, end: End) -> None:
        """Its process is gone: the kernel tells the other end, if it can."""
        if end.open:
            self.send(end, BREAK)
            end.open = False
            self._forget()

    def close(self, end: End) -> None:
        self.died(end)

    def break_(self) -> None:
        for end in self.ends:
            self._break_end(end)

    def _break_end(self, end: End) -> None:
        if end.open:
            end.open = False
            self._forget()
            end.broke()

    def _forget(self) -> None:
        if not any(end.open for end in self.ends):
            self.network.forget(self)

    def _other(self, end: End) -> End:
        return self.ends[1] if end is self.ends[0] else self.ends[0]


class _Break:
    """The other end's process is gone."""


BREAK = _Break()


def _outside() -> Any:
    from contextvars import Context  # noqa: PLC0415 - of this constant alone

    return Context()


OUTSIDE = _outside()
