"""What the host may count on: pure. A lease that ran out does not simply go on when heartbeats are answered again.

The naive way, a deadline that each answer moves on, runs a VE twice: a start that was begun under the old lease comes
about under the new one, while the VE runs elsewhere; or a set from before is acted on. So once the lease ran out it comes
back only when all that it covered is seen dead, and a session that began afterwards has brought a set.
"""

from math import inf

import msgspec

from veapi.model import Value

_NONE = -1


class Hold(Value, frozen=True, kw_only=True):
    """`promise`: until when the last answered heartbeat holds, in boot time. `deadline`: until when VEs may run, while `open`.

    `lapses`: how often it ran out; `heard`: their number when the session began that brought a set.
    """

    promise: float = -inf
    deadline: float = -inf
    open: bool = False
    lapses: int = 0
    heard: int = _NONE

    def holds(self, now: float) -> bool:
        return self.open and now < self.deadline


def found(deadline: float | None, now: float) -> Hold:
    """Of an agent that begins. `deadline`: that which vefence was told last; None: none. One that has passed ran out."""
    if deadline is None or now >= deadline:
        return Hold()
    return Hold(promise=deadline, deadline=deadline, open=True)


def checked(hold: Hold, now: float) -> Hold:
    """Ran out, if it is time."""
    if not hold.open or now < hold.deadline:
        return hold
    return msgspec.structs.replace(hold, open=False, lapses=hold.lapses + 1)


def answered(hold: Hold, until: float, now: float) -> Hold:
    """A heartbeat was answered that holds `until`. One that comes too late moves nothing on."""
    hold = checked(hold, now)
    promise = max(hold.promise, until)
    deadline = promise if hold.open else hold.deadline
    return msgspec.structs.replace(hold, promise=promise, deadline=deadline)


def heard(hold: Hold, lapses: int) -> Hold:
    """A set came in a session that began when it had run out that often."""
    return msgspec.structs.replace(hold, heard=lapses)


def unheard(hold: Hold) -> Hold:
    """The session is over: what the next one brings is to be heard first."""
    return msgspec.structs.replace(hold, heard=_NONE)


def may_open(hold: Hold, now: float) -> bool:
    """Apart from what is still alive."""
    return not hold.open and hold.heard == hold.lapses and now < hold.promise


def opened(hold: Hold) -> Hold:
    return msgspec.structs.replace(hold, open=True, deadline=hold.promise)
