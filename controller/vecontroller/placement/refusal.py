"""Why no host fits, in the words of a person: reasons summed over hosts, and what to do."""

from veapi.model import Resources
from vecontroller.placement.board import RESOURCES, Board, amounts
from vecontroller.placement.checks import FORMAT, Able, Room, checks_of, state_word
from vecontroller.placement.model import ASKED_FOR, Refusal, Request

NO_HOST_FITS = "NoHostFits"
_WAIT = "it starts by itself as soon as a host has room; or delete it"


def refusal_of(board: Board, request: Request) -> Refusal:
    """The refusal of a request that fits nowhere."""
    if request.gone:
        return _refusal(request, request.gone, "delete it")
    if not board.hosts:
        return _refusal(request, "there is no host yet", "start a veagent on a host; " + _WAIT)
    if request.host:
        return _of_pinned(board, request)
    message = f"{_hosts(len(board.hosts))}: {', '.join(_reasons(board, request))}"
    return _refusal(request, message, _hint(board, request))


def shortage(free: Resources, wanted: Resources) -> list[str]:
    """What is too little, and how much of it there is: `memory (free 1.5G)`. Nothing is wanted of what is 0."""
    return [
        f"{resource} (free {FORMAT[resource](max(left, 0))}, wanted {FORMAT[resource](want)})"
        for resource, left, want in zip(RESOURCES, amounts(free), amounts(wanted), strict=True)
        if want > 0 and want > left
    ]


def _refusal(request: Request, message: str, hint: str) -> Refusal:
    return Refusal(uid=request.uid, reason=NO_HOST_FITS, message=message, hint=hint)


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"


def _reasons(board: Board, request: Request) -> list[str]:
    """Of hosts that are able all that they fail; of the others that they are not."""
    found: list[str] = []
    for check in checks_of(board, request).must:
        failing = ~check.passes(board)
        if not isinstance(check, Able):
            failing &= board.able
        if failing.any():
            found.extend(check.counted(board, failing))
    return found


def _hint(board: Board, request: Request) -> str:
    over = [
        f"{resource} (at most {FORMAT[resource](int(most))})"
        for resource, most, want in zip(
            RESOURCES, board.capacity.max(axis=1), amounts(request.resources), strict=True
        )
        if want > most
    ]
    if over:
        return f"no host is that large: ask for less {' and '.join(over)}; or delete it"
    if not board.able.any():
        return "look at `vectl host list`; " + _WAIT
    if _room_is_left(board, request):
        return (
            f"`vectl explain` says what would help: loosen what it wishes, or add a host; {_WAIT}"
        )
    return f"ask for less, or add a host; {_WAIT}"


def _room_is_left(board: Board, request: Request) -> bool:
    """Whether some able host fails only for what is wished."""
    left = board.able.copy()
    for free, want in zip(board.free, amounts(request.resources), strict=True):
        left &= free >= want
    return bool(left.any())


def _of_pinned(board: Board, request: Request) -> Refusal:
    host = board.index.get(request.host)
    if host is None:
        known = ", ".join(sorted(row.name for row in board.hosts)[:10])
        return _refusal(
            request,
            f"host {request.host} is not known",
            f"known hosts: {known}; delete it and create it without a host, or with another one",
        )
    row = board.hosts[host]
    if not board.able[host]:
        return _refusal(
            request,
            f"host {row.name}, {request.host_why}, is {state_word(board, host)}",
            "it starts by itself when the host is able again; or delete it",
        )
    return _refusal(
        request,
        f"host {row.name}, {request.host_why}, {' and '.join(_clauses(board, request, host))}",
        f"ask for less, or {_elsewhere(request)}; {_WAIT}",
    )


def _clauses(board: Board, request: Request, host: int) -> list[str]:
    """What it has too little of, and which wishes don't come true there."""
    failing = [check for check in checks_of(board, request).must if not check.passes(board)[host]]
    lacks = [
        f"{check.name} (free {FORMAT[check.name](check.left(board, host))})"
        for check in failing
        if isinstance(check, Room)
    ]
    wishes = [check.why(board, host) for check in failing if not isinstance(check, Room | Able)]
    room = [f"has too little {' and '.join(lacks)}"] if lacks else []
    return [*room, *(f"is no place for it: {why}" for why in wishes)]


def _elsewhere(request: Request) -> str:
    if request.host_why == ASKED_FOR:
        return "let the controller choose the host"
    return "make room on that host"
