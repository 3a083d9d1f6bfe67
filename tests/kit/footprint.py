"""All that an agent may leave on its host, by kind: two of them are equal when nothing has leaked between."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from kit.realhost import RealHost

Footprint = dict[str, frozenset[str]]
"""Names of what is there, by kind."""


def footprint(host: RealHost) -> Footprint:
    return {
        "processes": frozenset(_processes(host)),
        "mounts": frozenset(_mounts(host)),
        "links": frozenset(link["ifname"] for link in json.loads(host.run("ip", "-j", "link"))),
        "filters": frozenset(host.run("nft", "-s", "list", "ruleset").splitlines()),
        "loop devices": frozenset(_loops(host)),
        "cgroups": frozenset(_cgroups(host)),
        "quota groups": frozenset(_pool(host, "qgroup", "show", "--raw")),
        "subvolumes": frozenset(_pool(host, "subvolume", "list")),
        "records and their id ranges": frozenset(host.records()),
        "files": frozenset(_files(host)),
    }


def differences(before: Footprint, after: Footprint) -> dict[str, list[str]]:
    """What came, by kind; of kinds where nothing did: nothing."""
    found = {kind: sorted(after[kind] - before[kind]) for kind in after}
    return {kind: names for kind, names in found.items() if names}


@dataclass(frozen=True, slots=True)
class Weight:
    """What a process holds of the machine."""

    memory_bytes: int
    files: int
    threads: int
    children: int

    @classmethod
    def of(cls, pid: int) -> "Weight":
        folder = Path(f"/proc/{pid}")
        resident = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        tasks = list((folder / "task").iterdir())
        children = [task / "children" for task in tasks]
        return cls(
            memory_bytes=resident,
            files=len(list((folder / "fd").iterdir())),
            threads=len(tasks),
            children=sum(len(path.read_text().split()) for path in children),
        )


def _processes(host: RealHost) -> list[str]:
    """In the host's cgroups, or with its folder in their arguments; without the agent itself."""
    found = [line for group in _cgroups(host) for line in _lines(Path(group) / "cgroup.procs")]
    mark, agent = str(host.folder).encode(), host.agent.pid if host.agent else 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        line = _bytes(path)
        if mark in line and path.parent.name != str(agent) and b"sleep infinity" not in line:
            found.append(line.replace(b"\0", b" ").decode(errors="replace").strip())
    return found


def _mounts(host: RealHost) -> list[str]:
    return [line.split()[4] for line in host.run("cat", "/proc/self/mountinfo").splitlines()]


def _loops(host: RealHost) -> list[str]:
    lines = host.run("losetup", "-nO", "NAME,BACK-FILE").splitlines()
    return [line for line in lines if str(host.folder) in line]


def _cgroups(host: RealHost) -> list[str]:
    top = Path("/sys/fs/cgroup")
    roots = [*top.glob(f"*/{host.cgroups}"), *top.glob(host.cgroups)]
    return [path for root in roots for path, _, _ in os.walk(root)]


def _pool(host: RealHost, *words: str) -> list[str]:
    """First word of each line: numbers of groups, `ID 257` of subvolumes."""
    lines = host.run("btrfs", *words, str(host.folder / "pool")).splitlines()
    return [" ".join(line.split()[: 2 if line.startswith("ID") else 1]) for line in lines]


def _files(host: RealHost) -> list[str]:
    """Of the agent, its pool and LXC; but not those inside of images."""
    below = [host.folder, Path("/run/lxc") / host.folder.relative_to("/")]
    below.append(Path("/run/lxc/lock") / host.folder.relative_to("/"))
    prune = ("-path", "*/pool/image*/*/*", "-prune", "-o", "-print")
    return [line for path in below for line in host.run("find", str(path), *prune).splitlines()]


def _lines(path: Path) -> list[str]:
    return _bytes(path).decode().split()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
