"""The door to vefence: three files in a folder of /run (see `vefence.notes`). Each call is a few file operations in memory."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog

from vefence import notes
from vefence.notes import Beat, KillList, Lease

log = structlog.get_logger()


class Door(Protocol):
    """`tell_*` raise OSError when the note can't be written: then vefence goes by the one before."""

    def told(self) -> tuple[Lease | None, KillList | None]:
        """What an earlier agent of this boot told it."""
        ...

    def tell_lease(self, lease: Lease) -> None: ...

    def tell_list(self, kill_list: KillList) -> None: ...

    def lacks(self) -> tuple[bool, bool]:
        """Whether lease and list are not there any more: one that begins anew would know nothing."""
        ...

    def heard(self) -> Beat | None:
        """Its newest beat; None: there is none of this boot."""
        ...


class FileDoor:
    """By files below `folder`, which is made when it is missing."""

    def __init__(self, folder: Path, boot_id: str) -> None:
        self._folder = folder
        self._boot_id = boot_id
        self._beat = notes.Reader(folder / notes.BEAT, Beat, boot_id, complain=_complain)

    def told(self) -> tuple[Lease | None, KillList | None]:
        """What is damaged counts as not told; it is told anew."""
        lease = notes.Reader(self._folder / notes.LEASE, Lease, self._boot_id, complain=_complain)
        listed = notes.Reader(
            self._folder / notes.LIST, KillList, self._boot_id, complain=_complain
        )
        return lease.look(), listed.look()

    def tell_lease(self, lease: Lease) -> None:
        self._write(notes.LEASE, lease)

    def tell_list(self, kill_list: KillList) -> None:
        """It is woken, as a start waits for its word."""
        self._write(notes.LIST, kill_list)
        self._wake()

    def lacks(self) -> tuple[bool, bool]:
        return not (self._folder / notes.LEASE).exists(), not (self._folder / notes.LIST).exists()

    def heard(self) -> Beat | None:
        return self._beat.look()

    def _write(self, name: str, note: notes.Note) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        notes.replace(self._folder / name, note)

    def _wake(self) -> None:
        """Without a vefence nobody reads the pipe, and it can't be opened."""
        with suppress(OSError):
            fd = os.open(self._folder / notes.WAKE, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, b".")
            finally:
                os.close(fd)


def _complain(what: str) -> None:
    log.warning("note of the fence not read", error=what)
