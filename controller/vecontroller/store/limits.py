"""What a transaction may carry, checked in one place for every store."""

from collections.abc import Sequence

from vecontroller.store.port import MAX_TRANSACTION_OPS, Guard, Write

GUARDS_LIMIT = MAX_TRANSACTION_OPS + 2
"""Two more than a caller may give: the leader's and the fence's."""
OPERATIONS_LIMIT = MAX_TRANSACTION_OPS


def check(guards: Sequence[Guard], writes: Sequence[Write]) -> None:
    """AssertionError for what no caller may send: too much, or a key written twice."""
    assert len(guards) <= GUARDS_LIMIT, f"{len(guards)} guards; at most {GUARDS_LIMIT}"
    assert len(writes) <= OPERATIONS_LIMIT, f"{len(writes)} writes; at most {OPERATIONS_LIMIT}"
    assert len({write.key for write in writes}) == len(writes), "a key is written twice"
