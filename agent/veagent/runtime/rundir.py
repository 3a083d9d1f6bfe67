"""LXC's own folder below /run: the monitors' FIFO, logs of starts, and lock files that LXC makes and never removes."""

from contextlib import suppress
from pathlib import Path

RUN = Path("/run/lxc")


def fifo(lxc_path: Path) -> Path:
    return Path(f"{RUN}/{lxc_path}/monitor-fifo")


def log(lxc_path: Path, uid: str) -> Path:
    """What LXC said of the VE's last life: of no use after a reboot of the host, so it needs no disk."""
    return fifo(lxc_path).with_name(f"{uid}.log")


def remove_files(lxc_path: Path, uid: str) -> None:
    """Lock and log of a VE."""
    log(lxc_path, uid).unlink(missing_ok=True)
    Path(f"{RUN}/lock/{lxc_path}/.{uid}").unlink(missing_ok=True)


def remove_empty(lxc_path: Path) -> None:
    """Removes the folders that were only there for this LXC path, as far as they are empty."""
    for start in (fifo(lxc_path).parent, Path(f"{RUN}/lock/{lxc_path}")):
        with suppress(OSError):
            for folder in (start, *start.parents):
                if RUN not in (folder, *folder.parents):
                    break
                folder.rmdir()
