"""A VE of a rack as its user and the kernel see it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.rack import Rack, Result, until
from veagent.recordfile import RecordFile

CGROUPS = Path("/sys/fs/cgroup")


def sh(rack: Rack, name: str, line: str, *, code: int | None = 0) -> str:
    """What a shell line in the VE printed."""
    return tried(rack, name, line, code=code).out.strip()


def tried(rack: Rack, name: str, line: str, *, code: int | None = None) -> Result:
    return rack.vectl("exec", name, "--", "sh", "-c", line, code=code)


def state(rack: Rack, name: str) -> str:
    return str(rack.ve(name)["status"]["state"])


def until_state(rack: Rack, name: str, wanted: str) -> None:
    until(lambda: state(rack, name) == wanted, within_s=60, what=f"{name} is {wanted}")


def init_pid(rack: Rack, name: str) -> int:
    return int(rack.ve(name)["status"]["init_pid"])


def address(rack: Rack, name: str) -> str:
    return str(rack.ve(name)["status"]["addresses"][0])


def events(rack: Rack, name: str) -> list[tuple[str, str, str]]:
    """Type, reason and message of each, the oldest first."""
    told: list[dict[str, Any]] = rack.ve(name)["status"].get("events", [])
    return [(each["type"], each["reason"], each["message"]) for each in told]


def event_of(rack: Rack, name: str, reason: str) -> tuple[str, str]:
    """Type and message of the newest event of that reason, which comes soon."""

    def found() -> list[tuple[str, str]]:
        return [(kind, text) for kind, why, text in events(rack, name) if why == reason]

    return until(found, within_s=30, what=f"an event {reason} of {name}")[-1]


def group(rack: Rack, name: str, v1: str, v2: str) -> str:
    """A file of the VE's own cgroup: `v1` as controller/file, `v2` as file."""
    ve = rack.ve(name)
    below = f"{rack.plan.cgroup}/{ve['placement']['host']}/ve/{ve['uid']}"
    if (CGROUPS / "cgroup.controllers").exists():
        return (CGROUPS / below / v2).read_text().strip()
    controller, _, file = v1.partition("/")
    return (CGROUPS / controller / below / file).read_text().strip()


def meminfo_kib(rack: Rack, name: str, field: str = "MemTotal") -> int:
    """As `free` in the VE would have it."""
    found = re.search(rf"{field}:\s+(\d+) kB", sh(rack, name, "cat /proc/meminfo"))
    assert found is not None
    return int(found[1])


def left(rack: Rack, host: str, uid: str) -> list[str]:
    """Whatever the host has of the VE: files, cgroups, links, its record."""
    state = rack.plan.host_state(rack.host(host))
    places = [str(state), str(CGROUPS), "/run/lxc"]
    found = rack.run_in_host(host, "find", *places, "-name", f"*{uid}*").split()
    device = uid.replace("-", "")[:12]
    links = rack.run_in_host(host, "ip", "-o", "link").splitlines()
    records = RecordFile(state / "agent/records", legacy=state / "agent/record").load()
    return [*found, *(line for line in links if device in line), *(u for u in records if u == uid)]


@contextmanager
def unrestarted(rack: Rack, name: str) -> Iterator[None]:
    """What happens inside leaves the very same init running."""
    before = rack.pids()[name]
    yield
    assert rack.pids()[name] == before, f"{name} was restarted"
