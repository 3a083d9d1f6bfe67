"""What a user asks of a VE, as values: what `create` and manifests give to the client."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A VE to be. What is left empty or 0 is a default of a new VE, and kept of one that is there; an empty project is the context's."""

    name: str
    image: str
    project: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    pids: int = 0
    run: str = ""
    ip: str = ""
    host: str = ""
    on_host_loss: str = ""
