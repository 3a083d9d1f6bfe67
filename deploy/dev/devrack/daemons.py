"""Starts and ends the rack's processes: each in the rack's cgroup, in its namespaces, with a log and a pid file."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from devrack import cgroups
from devrack.network import NETNS
from devrack.plan import ControllerPlan, HostPlan, RackPlan
from devrack.shell import run

# A host needs a /sys of its own namespace (LXC looks there for its bridge), with the machine's cgroups in it.
_HOLDER = """
set -e
mkdir -p {kept}
mount --rbind /sys/fs/cgroup {kept}
mount -t sysfs sysfs /sys
mount --rbind {kept} /sys/fs/cgroup
umount -l {kept}
touch {ready}
exec sleep infinity
"""


def log_path(plan: RackPlan, what: str) -> Path:
    return plan.run / f"{what}.log"


def pid_path(plan: RackPlan, what: str) -> Path:
    return plan.run / f"{what}.pid"


def spawn(
    plan: RackPlan, what: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None
) -> int:
    """Starts `argv` in the background, in the rack's cgroup; returns its process id."""
    group = cgroups.tracker() / plan.cgroup / "daemons"
    group.mkdir(parents=True, exist_ok=True)
    line = f"echo $$ >{shlex.quote(str(group / 'cgroup.procs'))}; exec {shlex.join(argv)}"
    with log_path(plan, what).open("ab") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", line],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    pid_path(plan, what).write_text(f"{process.pid}\n")
    return process.pid


def pid_of(plan: RackPlan, what: str) -> int | None:
    """Its process id while it lives in the rack's cgroup; None else."""
    try:
        pid = int(pid_path(plan, what).read_text())
    except (OSError, ValueError):
        return None
    return pid if pid in cgroups.processes(f"{plan.cgroup}/daemons") else None


def end(
    plan: RackPlan, what: str, number: signal.Signals = signal.SIGTERM, *, within_s: float = 10
) -> None:
    """Sends the signal and waits for the end; TimeoutError when it does not come."""
    pid = pid_of(plan, what)
    if pid is None:
        return
    os.kill(pid, number)
    deadline = time.monotonic() + within_s
    while pid_of(plan, what) is not None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} ({pid}) did not end within {within_s:g} s")
        _reap(pid)
        time.sleep(0.01)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def start_lxcfs(plan: RackPlan) -> None:
    """One for all hosts; never an agent's child, so that it outlives them. A dead one's mount is taken away first."""
    run(["umount", "--lazy", str(plan.lxcfs)], check=False)
    plan.lxcfs.mkdir(parents=True, exist_ok=True)
    pidfile = plan.run / "lxcfs.lock"
    spawn(
        plan,
        "lxcfs",
        ["lxcfs", "-f", "-p", str(pidfile), "-l", "-u", "--enable-cfs", str(plan.lxcfs)],
    )


def start_holder(plan: RackPlan, host: HostPlan) -> None:
    """Keeps the host's namespaces while its agent is down."""
    ready = plan.run / f"{host.name}.ready"
    script = _HOLDER.format(kept=plan.run / f"{host.name}.cgroups", ready=ready)
    namespace = NETNS / plan.namespace(host.name)
    argv = ["nsenter", f"--net={namespace}", "unshare", "--mount", "--propagation", "slave"]
    spawn(plan, f"{host.name}-holder", [*argv, "sh", "-c", script])
    deadline = time.monotonic() + 10
    while not ready.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"no namespace for {host.name}: see {log_path(plan, host.name + '-holder')}"
            )
        time.sleep(0.01)


def start_agent(plan: RackPlan, host: HostPlan) -> int:
    """The agent as on a real machine, inside the host's namespaces."""
    holder = pid_of(plan, f"{host.name}-holder")
    if holder is None:
        raise RuntimeError(f"host {host.name} has no namespaces: the rack is not up")
    config = plan.host_state(host) / "agent.toml"
    argv = [str(plan.bin / "veagent"), "--config", str(config)]
    return spawn(plan, f"{host.name}-agent", ["nsenter", "-t", str(holder), "-m", "-n", *argv])


def start_vefence(plan: RackPlan, host: HostPlan) -> int:
    """As on a real machine: beside the agent, and never ended with it."""
    holder = pid_of(plan, f"{host.name}-holder")
    if holder is None:
        raise RuntimeError(f"host {host.name} has no namespaces: the rack is not up")
    config = plan.host_state(host) / "agent.toml"
    argv = [str(plan.python), "-m", "vefence", "--config", str(config)]
    return spawn(plan, f"{host.name}-vefence", ["nsenter", "-t", str(holder), "-m", "-n", *argv])


def inside(namespace: str, argv: Sequence[str]) -> list[str]:
    """The command, in that network namespace."""
    return ["nsenter", f"--net={NETNS / namespace}", *argv]


def vectl_argv(plan: RackPlan, arguments: Sequence[str]) -> list[str]:
    """Of a rack with several controllers, vectl runs where their addresses can be reached."""
    argv = [str(plan.bin / "vectl"), *arguments]
    return argv if plan.controller_count == 1 else inside(plan.switch, argv)


def start_controller(plan: RackPlan, controller: ControllerPlan | None = None) -> int:
    """That one, else the first."""
    found = controller or plan.controllers[0]
    config = plan.state / f"{found.daemon}.toml"
    argv = [str(plan.bin / "vecontroller"), "run", "--config", str(config)]
    return spawn(plan, found.daemon, inside(plan.namespace_of(found), argv))


def start_etcd(plan: RackPlan, controller: ControllerPlan) -> int:
    """The member of the etcd cluster that is beside that controller, as docs/operations/controllers.md tells."""
    address, folder = plan.address_of(controller), plan.identity(controller.etcd)
    members = [f"{each.etcd}=https://{plan.address_of(each)}:2380" for each in plan.controllers]
    files = [f"cert-file={folder}/tls.crt", f"key-file={folder}/tls.key"]
    files += [f"trusted-ca-file={folder}/ca.crt", "client-cert-auth=true"]
    argv = [
        "etcd",
        f"--name={controller.etcd}",
        f"--data-dir={plan.state / controller.etcd}",
        f"--listen-client-urls=https://{address}:2379",
        f"--advertise-client-urls=https://{address}:2379",
        f"--listen-peer-urls=https://{address}:2380",
        f"--initial-advertise-peer-urls=https://{address}:2380",
        f"--initial-cluster={','.join(members)}",
        f"--initial-cluster-token={plan.name}",
        *(f"--{file}" for file in files),
        *(f"--peer-{file}" for file in files),
        "--auto-compaction-mode=revision",
        "--auto-compaction-retention=10000",
        "--quota-backend-bytes=4294967296",
        "--logger=zap",
        "--log-level=warn",
    ]
    return spawn(plan, controller.etcd, inside(plan.namespace_of(controller), argv))
