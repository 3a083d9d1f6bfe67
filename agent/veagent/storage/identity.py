"""What makes a root one VE's own: its names. A clone must not keep those of the VE that it is a copy of."""

import errno
from pathlib import Path

from veagent.storage import beneath
from veapi.errors import InvalidInput

_MACHINE_ID = "machine-id"


def give(root: Path, hostname: str, *, cloned: bool) -> None:
    """Writes /etc/hostname; of a clone also empties /etc/machine-id, which systemd then makes anew.

    InvalidInput when /etc is no plain folder: a guest, root of its own VE, may have made it anything.
    """
    try:
        with beneath.opened_root(root) as fd:
            _write(fd, hostname, cloned=cloned)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR, errno.EISDIR}:
            raise
        raise InvalidInput(
            "the root has no plain folder /etc with plain files for the VE's names in it",
            hint="make it from another snapshot, or from the image (vectl rebuild)",
        ) from None


def _write(fd: int, hostname: str, *, cloned: bool) -> None:
    beneath.write_file(fd, "etc", "hostname", f"{hostname}\n".encode())
    if cloned and beneath.look(fd, f"etc/{_MACHINE_ID}") is not None:
        beneath.write_file(fd, "etc", _MACHINE_ID, b"")
