"""What a host says of itself: its capacity from the machine unless the configuration says otherwise."""

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from veagent.events import words
from veagent.ports import Images, Roots
from veagent.sealed import replace_file
from veapi.errors import Unavailable, VerackError
from veapi.model import FenceFacts, HostFacts, Resources

PIDS_DEFAULT = 32_768
_RESERVE_SHARE = 0.05
_RESERVE_LEAST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """`memory_bytes` is what VEs may have: 5 %, at least 256 MiB, are kept for the host itself."""

    cpu_millis: int
    memory_bytes: int
    boot_id: str


def look_at_machine(proc: Path = Path("/proc")) -> Machine:
    """Cores that this process may use, memory and boot id of the kernel."""
    total = _meminfo_bytes((proc / "meminfo").read_text(), "MemTotal")
    reserve = max(_RESERVE_LEAST_BYTES, int(total * _RESERVE_SHARE))
    return Machine(
        cpu_millis=len(os.sched_getaffinity(0)) * 1000,
        memory_bytes=max(0, total - reserve),
        boot_id=(proc / "sys/kernel/random/boot_id").read_text().strip(),
    )


def _meminfo_bytes(text: str, field: str) -> int:
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) << 10
    return 0


def machine_id(state: Path) -> str:
    """Random, made once and kept in the agent's state folder: durable before anybody is told. Unavailable when it can't be kept."""
    path = state / "machine-id"
    try:
        found = path.read_text().strip() if path.exists() else ""
        if not found:
            found = uuid.uuid4().hex
            state.mkdir(parents=True, exist_ok=True)
            replace_file(path, f"{found}\n".encode())
    except OSError as error:
        raise Unavailable(
            f"{path}: {error.strerror}", hint="the agent keeps its machine's id there"
        ) from None
    return found


def own_version() -> str:
    try:
        return version("verack")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class HostFactsSource:
    """Reads what changes (images, size of the pool) each time."""

    boot_id: str
    labels: Mapping[str, str]
    capacity: Resources
    address: str
    peer_port: int
    metrics_address: str
    images: Images
    roots: Roots
    fence: Callable[[], FenceFacts] = FenceFacts
    machine_id: str = ""

    def read(self) -> HostFacts:
        """Also of a host whose disk fails: it takes nothing new, and what runs is reported on."""
        try:
            disk_bytes, refuses = self.roots.capacity_bytes(), self.roots.refuses()
        except VerackError as error:
            disk_bytes, refuses = 0, words(error)
        return HostFacts(
            boot_id=self.boot_id,
            version=own_version(),
            labels=self.labels,
            capacity=Resources(
                cpu_millis=self.capacity.cpu_millis,
                memory_bytes=self.capacity.memory_bytes,
                disk_bytes=disk_bytes,
                pids=self.capacity.pids,
            ),
            address=self.address,
            peer_port=self.peer_port,
            metrics_address=self.metrics_address,
            images=tuple(self.images.held()),
            refuses=refuses,
            fence=self.fence(),
            machine_id=self.machine_id,
        )
