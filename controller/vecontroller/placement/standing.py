"""The board of hosts as it stands from one decision to the next: only what changed is made anew.

With 10,000 hosts and 100,000 VEs a board takes a second to make, and a decision about one VE a millisecond. What changed is
found in the view itself (`touched`), not told: so a decision is as right as if all had been made anew.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from veapi.model import HostName, HostState, Resources
from vecontroller.placement.board import Board
from vecontroller.placement.ledger import coming_too, host_row
from vecontroller.placement.model import HostRow
from vecontroller.placement.rules import Rules
from vecontroller.view import View


class StandingBoard:
    """`rows` are those of the last look; those of hosts that did not change are the same objects again."""

    def __init__(self, rules: Rules) -> None:
        self.rows: list[HostRow] = []
        self._rules = rules
        self._view: View | None = None
        self._seen = 0
        self._plain: dict[HostName, HostRow] = {}
        """Rows without what is on its way."""
        self._board = Board(())

    def look(
        self,
        view: View,
        *,
        state: Callable[[HostName], HostState],
        connected: Callable[[HostName], bool],
        in_flight: Mapping[HostName, Iterable[Resources]],
    ) -> Board:
        """The board as it is now. It stays this object's: what is taken from it is to be rewound."""
        rows = self.rows_of(view, state=state, connected=connected, in_flight=in_flight)
        before, self.rows = self.rows, rows
        if not self._board.follow(before, rows):
            self._board = Board(rows)
        return self._board

    def rows_of(
        self,
        view: View,
        *,
        state: Callable[[HostName], HostState],
        connected: Callable[[HostName], bool],
        in_flight: Mapping[HostName, Iterable[Resources]],
    ) -> list[HostRow]:
        """A row for each known host, in the order of names. The board is left as it is."""
        self._forget(view)
        rows = []
        for name in sorted(view.hosts):
            row = self._row(view, name, state(name), connected(name))
            rows.append(coming_too(row, tuple(in_flight.get(name, ()))))
        return rows

    def _forget(self, view: View) -> None:
        """What changed since the last look. Another view: everything."""
        if view is not self._view:
            self._view, self._seen = view, 0
            self._plain.clear()
        for name in view.touched_since(self._seen):
            self._plain.pop(name, None)
        self._seen = view.touches

    def _row(
        self,
        view: View,
        name: HostName,
        state: HostState,
        connected: bool,  # noqa: FBT001
    ) -> HostRow:
        row = self._plain.get(name)
        if row is None:
            row = host_row(view, name, self._rules, state=state, connected=connected)
        elif (row.state, row.connected) != (state, connected):
            row = msgspec.structs.replace(row, state=state, connected=connected)
        self._plain[name] = row
        return row
