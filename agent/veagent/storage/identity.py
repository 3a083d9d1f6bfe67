"""What makes a root one VE's own: its names. A clone must not keep those of the VE that it is a copy of."""

from pathlib import Path

from veagent.storage import beneath

_MACHINE_ID = "machine-id"


def give(root: Path, hostname: str, *, cloned: bool) -> None:
    """Writes /etc/hostname; of a clone also empties /etc/machine-id, which systemd then makes anew."""
    with beneath.opened_root(root) as fd:
        beneath.write_file(fd, "etc", "hostname", f"{hostname}\n".encode())
        if cloned and beneath.look(fd, f"etc/{_MACHINE_ID}") is not None:
            beneath.write_file(fd, "etc", _MACHINE_ID, b"")
