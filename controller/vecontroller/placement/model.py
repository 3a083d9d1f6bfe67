"""What a placement is decided from and what it gives. Times and revisions are plain numbers; no I/O, no clock."""

from veapi.model import HostName, HostState, Resources, Uid, Value

ASKED_FOR = "which was asked for"


class HostRow(Value, frozen=True, kw_only=True):
    """A host as the ledger sees it. `committed`: all that is placed there or on its way, running or not.

    Only a host that is READY and `connected` (its session is live) gets VEs, unless it says why it takes none (`refuses`).
    """

    name: HostName
    rack: str
    capacity: Resources
    committed: Resources
    placed: int
    state: HostState = HostState.READY
    connected: bool = True
    refuses: str = ""

    @property
    def able(self) -> bool:
        return self.connected and self.state is HostState.READY and not self.refuses


class Request(Value, frozen=True, kw_only=True):
    """A VE that wants a host. `since` orders requests: the lower comes first (revision at which it was created).

    `host`: the only one that may have it; `host_why`: why, e.g. "which holds what it is cloned from"; `gone`: why none may.
    """

    uid: Uid
    resources: Resources
    host: str = ""
    host_why: str = ASKED_FOR
    gone: str = ""
    since: int = 0


class Assignment(Value, frozen=True, kw_only=True):
    """`message` says why this host."""

    uid: Uid
    host: HostName
    message: str


class Refusal(Value, frozen=True, kw_only=True):
    """Why a VE got no host. `message` sums the reasons over all hosts, `hint` says what to do.

    `at`: Unix seconds of the first refusal with these words, for people; a plan knows no time and leaves it 0.
    """

    uid: Uid
    reason: str
    message: str
    hint: str
    at: float = 0.0


class Plan(Value, frozen=True, kw_only=True):
    """What to do with each request; both parts in the order in which requests were served."""

    assignments: tuple[Assignment, ...] = ()
    refusals: tuple[Refusal, ...] = ()
