"""Deaths at each step: from the n-th change of the disk on, nothing happens any more, as if the process had been killed."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from veagent.storage import waiting

_CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir")
_LOOK_NUMBERS = {17, 18, 20, 30, 31, 60}
_BTRFS = 0x94


class Died(BaseException):
    """No clean-up of the code under test may catch it and go on."""


class Deaths:
    """`steps` counts the changes that were made."""

    def __init__(self, after: int) -> None:
        self.steps = 0
        self.died = False
        self._after = after

    def step(self) -> None:
        if self.died or self.steps >= self._after:
            self.died = True
            raise Died
        self.steps += 1


@contextmanager
def dying(after: int) -> Iterator[Deaths]:
    """Lets `after` changes happen: ioctls that change a btrfs, folders, renames, removals."""
    deaths = Deaths(after)
    ioctls = {module: module.ioctl for module in (fcntl, waiting)}
    real = {name: getattr(os, name) for name in _CHANGES}
    for module, ioctl in ioctls.items():
        setattr(module, "ioctl", _guarded_ioctl(ioctl, deaths))  # noqa: B010 - mypy knows better
    for name, function in real.items():
        setattr(os, name, _guarded(function, deaths))
    try:
        yield deaths
    finally:
        for module, ioctl in ioctls.items():
            setattr(module, "ioctl", ioctl)  # noqa: B010
        for name, function in real.items():
            setattr(os, name, function)


def _guarded(function: Callable[..., object], deaths: Deaths) -> Callable[..., object]:
    def call(*args: object, **options: object) -> object:
        deaths.step()
        return function(*args, **options)

    return call


def _guarded_ioctl(function: Callable[..., object], deaths: Deaths) -> Callable[..., object]:
    def call(fd: int, request: int, *args: object) -> object:
        if request >> 8 & 0xFF == _BTRFS and request & 0xFF not in _LOOK_NUMBERS:
            deaths.step()
        return function(fd, request, *args)

    return call
