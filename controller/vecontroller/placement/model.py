"""What a placement is decided from and what it gives. Times and revisions are plain numbers; no I/O, no clock."""

from collections.abc import Mapping
from enum import StrEnum

from veapi.model import HostName, HostState, Resources, Uid, Value

ASKED_FOR = "which was asked for"
PLANNED = "which the plan chose"


class Strategy(StrEnum):
    """Whether VEs go where there are few, or where there is little room left."""

    SPREAD = "spread"
    PACK = "pack"


class Request(Value, frozen=True, kw_only=True):
    """A VE that wants a host. `since` orders requests: the lower comes first (revision at which it was created); before it
    the higher `priority` does.

    `host`: the only one that may have it; `host_why`: why, e.g. "which holds what it is cloned from"; `gone`: why none may.
    `image`: digest, empty where a host needs none. `fenced`: it is started elsewhere when its host is lost. `require` to `spread`: wishes, in the words of `veapi.wishes`.
    """

    uid: Uid
    resources: Resources
    host: str = ""
    host_why: str = ASKED_FOR
    gone: str = ""
    since: int = 0
    project: str = ""
    labels: Mapping[str, str] = {}
    image: str = ""
    strategy: Strategy = Strategy.SPREAD
    require: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    tolerate: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    priority: int = 0
    fenced: bool = False


class HostRow(Value, frozen=True, kw_only=True):
    """A host as the ledger sees it. `committed`: all that is placed there or on its way, running or not.

    Only a host that is READY and `connected` (its session is live) gets VEs, unless it says why it takes none (`refuses`).
    `unfenced`: its vefence does not run, so it gets no VEs that are fenced.
    `tenants`: the VEs that are placed there; they are in `committed` and `placed`. `images`: digests that it holds.
    """

    name: HostName
    rack: str
    capacity: Resources
    committed: Resources
    placed: int
    state: HostState = HostState.READY
    connected: bool = True
    refuses: str = ""
    unfenced: bool = False
    tenants: tuple[Request, ...] = ()
    labels: Mapping[str, str] = {}
    taints: tuple[str, ...] = ()
    images: frozenset[str] = frozenset()

    @property
    def able(self) -> bool:
        return self.connected and self.state is HostState.READY and not self.refuses


class Assignment(Value, frozen=True, kw_only=True, gc=False):
    """`message` says why this host. Only texts: the collector need not look at a hundred thousand of them."""

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


class Failing(Value, frozen=True, kw_only=True):
    """A check that a host does not pass: its name, why with numbers, and what would make the host pass."""

    check: str
    why: str
    change: str


class Part(Value, frozen=True, kw_only=True):
    """Of a score. `value`: the lower is the better; parts are compared in their order. `text`: for people."""

    name: str
    value: int
    text: str


class Verdict(Value, frozen=True, kw_only=True):
    """One host, for one request. `rank`: 1 is the host that it would get; 0: it does not fit, for all that is `failing`."""

    host: HostName
    rack: str
    rank: int
    failing: tuple[Failing, ...] = ()
    parts: tuple[Part, ...] = ()


class Explanation(Value, frozen=True, kw_only=True):
    """Every host, for one request: those that fit by rank, then the others by how little is missing.

    `refusal`: why none fits; `changes`: what would make one fit, each enough by itself, the smallest first.
    """

    verdicts: tuple[Verdict, ...]
    refusal: Refusal | None = None
    changes: tuple[str, ...] = ()
