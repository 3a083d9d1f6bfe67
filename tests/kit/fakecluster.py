"""What the fake controller knows: VEs, images, hosts and projects in dicts, and who watches."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from veapi.errors import NotFound
from veapi.v1 import api_pb2, types_pb2

CLUSTER = "rack"
IMAGES = ("ok", "slow", "huge", "broken")
ADDED = api_pb2.VEChange.KIND_ADDED
CHANGED = api_pb2.VEChange.KIND_CHANGED
DELETED = api_pb2.VEChange.KIND_DELETED
SYNCED = api_pb2.VEChange.KIND_SYNCED


def stamp() -> Any:
    found = types_pb2.Event().time
    found.GetCurrentTime()
    return found


def told(kind: Any, ve: types_pb2.VE, revision: int) -> api_pb2.VEChange:
    """As a watch tells it: without events."""
    change = api_pb2.VEChange(kind=kind, ve=ve, revision=revision)
    del change.ve.status.events[:]
    return change


@dataclass
class FakeCluster:
    """All state, and what a test may set. `calls` are the names of methods in the order in which they came."""

    ves: dict[str, types_pb2.VE] = field(default_factory=dict)
    images: dict[str, types_pb2.Image] = field(default_factory=dict)
    projects: list[str] = field(default_factory=lambda: ["default"])
    hosts: list[types_pb2.Host] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    requests: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    signals: list[int] = field(default_factory=list)
    logs: bytes = b"one\ntwo\nthree\n"
    revision: int = 10
    released: asyncio.Event = field(default_factory=asyncio.Event)
    watchers: dict[int, "asyncio.Queue[api_pb2.VEChange]"] = field(default_factory=dict)
    set_runs: list[api_pb2.SetRunRequest] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    deleted: dict[str, types_pb2.VE] = field(default_factory=dict)
    serials: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        for name in IMAGES:
            self.images[name] = types_pb2.Image(
                digest="sha256:" + name.encode().hex().ljust(64, "0"),
                tags=[name],
                size_bytes=3 << 20,
                blob_bytes=1 << 20,
                hosts=["h1", "h2"],
                created_at=stamp(),
            )
        for name, rack in (("h1", "r1"), ("h2", "r2")):
            self.hosts.append(
                types_pb2.Host(
                    name=name,
                    labels={"rack": rack},
                    state="Ready",
                    capacity=types_pb2.Resources(cpu=8, memory_bytes=16 << 30, pids=32768),
                    room=types_pb2.Resources(cpu=8, memory_bytes=16 << 30, pids=32768),
                    address="10.88.0.11",
                )
            )

    def release(self) -> None:
        self.released.set()

    def find(self, project: str, name: str) -> types_pb2.VE:
        for ve in self.ves.values():
            if (ve.project, ve.name) == (project, name):
                return ve
        raise NotFound(f"there is no VE {name} in project {project}", hint="see `vectl list`")

    def tell(self, kind: Any, ve: types_pb2.VE) -> None:
        self.revision += 1
        for queue in self.watchers.values():
            queue.put_nowait(told(kind, ve, self.revision))

    def state(self, ve: types_pb2.VE, state: str, **fields: Any) -> None:
        """Moves a VE to a state, with an event of it."""
        ve.status.state = state
        ve.status.reason = fields.pop("reason", "")
        ve.status.message = fields.pop("message", "")
        for key, value in fields.items():
            setattr(ve.status, key, value)
        event = types_pb2.Event(time=stamp(), type="Normal", reason=state, ve=ve.name)
        event.project, event.host, event.message = ve.project, ve.status.host, f"{ve.name} {state}"
        ve.status.events.append(event)
        self.tell(CHANGED, ve)
