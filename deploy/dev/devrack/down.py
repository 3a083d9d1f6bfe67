"""Takes a rack away, whatever state it is in: found by its cgroups, namespaces and folders, not by anybody's memory."""

import shutil
import signal
from pathlib import Path

from devrack import cgroups, daemons, files, network
from devrack.plan import RackPlan
from devrack.shell import run

LINK = Path("/usr/local/bin/vectl")


def down(plan: RackPlan) -> None:
    """Ends its processes, then removes namespaces, mounts, loop devices, cgroups and folders. Again does no harm."""
    _ask_controller(plan)
    cgroups.kill(plan.cgroup)
    _unmount(plan)
    _detach_loops(plan)
    network.delete(plan)
    cgroups.remove(plan.cgroup)
    for folder in _folders(plan):
        shutil.rmtree(folder, ignore_errors=True)
        _remove_empty(folder.parent)


def _folders(plan: RackPlan) -> list[Path]:
    """The rack's own, and what LXC keeps in /run under the path of each VE's configuration."""
    ours = [plan.run, plan.state]
    kept = [Path("/run/lxc"), Path("/run/lxc/lock")]
    return ours + [base / folder.relative_to("/") for base in kept for folder in ours]


def forget_user(plan: RackPlan) -> None:
    """Removes the link to vectl and the context, if they are the rack's."""
    if LINK.is_symlink() and LINK.readlink() == plan.bin / "vectl":
        LINK.unlink()
    files.remove_user_context(plan)


def _ask_controller(plan: RackPlan) -> None:
    """A clean end lets etcd close its files; but nothing depends on it."""
    try:
        daemons.end(plan, "controller", signal.SIGTERM, within_s=3)
    except TimeoutError:
        return


def _ours(plan: RackPlan, path: str) -> bool:
    return any(path == str(top) or path.startswith(f"{top}/") for top in (plan.run, plan.state))


def mounts(plan: RackPlan) -> list[str]:
    """The rack's mount points in this namespace, deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if _ours(plan, point)), key=len, reverse=True)


def _unmount(plan: RackPlan) -> None:
    for point in mounts(plan):
        run(["umount", "--lazy", point], check=False)


def loops(plan: RackPlan) -> list[str]:
    """Loop devices on the rack's files."""
    lines = run(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]).splitlines()
    pairs = [line.split(maxsplit=1) for line in lines]
    return [pair[0] for pair in pairs if len(pair) == 2 and _ours(plan, pair[1])]


def _detach_loops(plan: RackPlan) -> None:
    for device in loops(plan):
        run(["losetup", "--detach", device], check=False)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def leftovers(plan: RackPlan) -> list[str]:
    """What is left of the rack, each as a line for people; empty after `down`."""
    found = [f"process {pid}" for pid in sorted(cgroups.processes(plan.cgroup))]
    found += [f"mount {point}" for point in mounts(plan)]
    found += [f"loop device {device}" for device in loops(plan)]
    found += [f"namespace {name}" for name in network.existing(plan)]
    found += [f"cgroup {group}" for group in cgroups.leftovers(plan.cgroup)]
    found += [f"folder {folder}" for folder in _folders(plan) if folder.exists()]
    if (Path("/sys/class/net") / plan.uplink_device).exists():
        found.append(f"link {plan.uplink_device}")
    return found
