"""Listens to the logs of the programs: what they call unexpected is a violation, whatever they do about it."""

import sys
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from sim.loop import CURRENT

if TYPE_CHECKING:
    from sim.world import World

INFO, ERROR = 20, 40
UNEXPECTED = frozenset(
    (
        "worker failed unexpectedly",
        "step failed unexpectedly",
        "worker died",
        "session failed",
        "session ended unexpectedly",
        "request failed",
        "mirror differed from the store",
        "ledger file damaged, set aside",
    )
)


@contextmanager
def hearing(world: "World", *, everything: bool) -> Iterator[None]:
    """Of one story. `everything`: tells what is only informative too."""

    def hear(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        words = str(event.pop("event"))
        process = CURRENT.get()
        who = process.name if process is not None else "nobody"
        error = event.get("exc_info")
        if words in UNEXPECTED:
            world.checks.violate("nothing unexpected happens", f"{who}: {words} {_fields(event)}")
        if everything:
            world.overhear(f"{who}: {words} {_fields(event)}")
            if error:
                world.overhear("".join(traceback.format_exception(*_exc_info(error))))
        raise structlog.DropEvent

    _configure(hear, INFO if everything else ERROR)
    try:
        yield
    finally:
        _configure(_drop, ERROR)


@contextmanager
def silence() -> Iterator[None]:
    """Nobody hears the programs: what is left of a story may still speak when it is cleared away."""
    before = structlog.get_config()
    _configure(_drop, ERROR)
    try:
        yield
    finally:
        structlog.configure(**before)


def _configure(processor: Any, level: int) -> None:
    structlog.configure(
        processors=[processor],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _drop(_logger: object, _method: str, _event: MutableMapping[str, Any]) -> str:
    raise structlog.DropEvent


def _exc_info(error: Any) -> Any:
    if isinstance(error, BaseException):
        return type(error), error, error.__traceback__
    return sys.exc_info() if error is True else error


def _fields(event: MutableMapping[str, Any]) -> str:
    shown = [f"{key}={str(value)[:300]}" for key, value in event.items() if key != "exc_info"]
    error = event.get("exc_info")
    if error:
        shown.append(repr(error if isinstance(error, BaseException) else sys.exc_info()[1]))
    return " ".join(shown)
