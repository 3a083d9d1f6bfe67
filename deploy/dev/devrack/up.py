"""Brings a rack up, step by step, each step shown. A step that fails says where to look."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from devrack import daemons, files, network
from devrack.down import LINK, down, leftovers
from devrack.plan import REPOSITORY, RackPlan
from devrack.shell import CommandFailed, run

Say = Callable[[str], None]
IMAGES = REPOSITORY / "deploy" / "images"
EXAMPLE = REPOSITORY / "deploy" / "dev" / "example.yaml"


class RackFailed(Exception):
    """What did not come up, and which log tells why."""


def vectl(plan: RackPlan, *arguments: str, timeout_s: float = 60) -> str:
    """Runs vectl with the rack's own context file."""
    env = {**os.environ, "XDG_CONFIG_HOME": str(files.context_file(plan).parents[1])}
    env.pop("VECTL_CONTEXT", None)
    return run(daemons.vectl_argv(plan, arguments), env=env, timeout_s=timeout_s)


def up(plan: RackPlan, say: Say) -> None:
    """Switch, controller with its etcd, and the hosts, until all are Ready. What was left before is removed first."""
    if leftovers(plan):
        say("removing what is left of an earlier rack")
        down(plan)
    say("certificates and configuration")
    files.write(plan)
    say("switch and hosts' network namespaces")
    network.create(plan)
    _share(plan)
    if plan.runtime == "lxc":
        daemons.start_lxcfs(plan)
    say("controller with its etcd")
    _start_controllers(plan)
    for host in plan.hosts:
        daemons.start_holder(plan, host)
        daemons.start_vefence(plan, host)
        daemons.start_agent(plan, host)
    _wait(lambda: _answers(plan), plan, "controller", within_s=30)
    say("agents: " + ", ".join(host.name for host in plan.hosts))
    _wait(lambda: ready_hosts(plan) == len(plan.hosts), plan, "h1-agent", within_s=60)


def _start_controllers(plan: RackPlan) -> None:
    if plan.controller_count > 1:
        for controller in plan.controllers:
            daemons.start_etcd(plan, controller)
    for controller in plan.controllers:
        daemons.start_controller(plan, controller)


def _share(plan: RackPlan) -> None:
    """Mounts made below `shared` later on (lxcfs again, after its death) appear in the hosts' namespaces too."""
    shared = plan.lxcfs.parent
    shared.mkdir(parents=True, exist_ok=True)
    run(["mount", "--bind", str(shared), str(shared)])
    run(["mount", "--make-private", str(shared)])
    run(["mount", "--make-shared", str(shared)])


def _answers(plan: RackPlan) -> bool:
    try:
        vectl(plan, "version", timeout_s=10)
    except CommandFailed:
        return False
    return True


def ready_hosts(plan: RackPlan) -> int:
    """How many hosts are Ready."""
    try:
        hosts = json.loads(vectl(plan, "host", "list", "-o", "json"))["items"]
    except CommandFailed:
        return 0
    return sum(1 for host in hosts if host.get("state") == "Ready")


def _wait(done: Callable[[], bool], plan: RackPlan, what: str, *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        names = [*(controller.daemon for controller in plan.controllers), what]
        dead = [name for name in names if daemons.pid_of(plan, name) is None]
        if dead or time.monotonic() > deadline:
            name = (dead or [what])[0]
            tail = daemons.log_path(plan, name).read_text(errors="replace")[-2000:]
            raise RackFailed(
                f"{name} did not come up; {daemons.log_path(plan, name)} ends with:\n{tail}"
            )
        time.sleep(0.05)


def make_image(plan: RackPlan) -> Path:
    """The small image, made on the spot."""
    image = plan.state / "busybox.tar"
    run(["sh", str(IMAGES / "busybox.sh"), str(image)])
    return image


def populate(plan: RackPlan, say: Say) -> None:
    """Imports the small image and applies the example, until its VEs run."""
    say("image busybox, made from busybox-static")
    vectl(plan, "image", "import", "busybox", str(make_image(plan)))
    say("the VEs of deploy/dev/example.yaml")
    vectl(plan, "apply", "-f", str(EXAMPLE))


def adopt_user(plan: RackPlan) -> None:
    """Makes plain `vectl` of this user work against the rack."""
    files.add_user_context(plan)
    target = plan.bin / "vectl"
    if LINK.is_symlink():
        LINK.unlink()
    if LINK.exists():
        raise RackFailed(f"{LINK} exists and is not ours; remove it, or call {target} by its path")
    LINK.symlink_to(target)
