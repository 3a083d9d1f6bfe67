"""Which of a rack's controllers leads, and which of its etcd members; and what a test does to them."""

import os
import re
import signal
import subprocess

from devrack import daemons
from devrack.plan import ControllerPlan
from kit.rack import Rack, until


def led_by(rack: Rack) -> tuple[ControllerPlan, int]:
    """The controller that leads, as vectl is told, and its epoch."""
    said = rack.vectl("version").out
    found = re.search(r"led by c(\d+) \(epoch (\d+)", said)
    assert found is not None, said
    return rack.plan.controllers[int(found[1]) - 1], int(found[2])


def etcd_led_by(rack: Rack) -> ControllerPlan:
    """The controller beside the member of etcd that leads."""
    found = until(lambda: _etcd_leader(rack), within_s=30, what="etcd has a leader")
    assert found is not None
    return found


def _etcd_leader(rack: Rack) -> ControllerPlan | None:
    folder = rack.plan.identity("c1-etcd")
    for each in rack.plan.controllers:
        argv = ["etcdctl", f"--endpoints=https://{rack.plan.address_of(each)}:2379"]
        argv += [f"--cacert={folder}/ca.crt", f"--cert={folder}/tls.crt", f"--key={folder}/tls.key"]
        argv += ["--command-timeout=2s", "endpoint", "status", "-w", "fields"]
        done = subprocess.run(
            daemons.inside(rack.plan.switch, argv),
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        lines = (line.split(" : ", 1) for line in done.stdout.splitlines() if " : " in line)
        said = dict(lines)
        if said and said['"MemberID"'] == said['"Leader"']:
            return each
    return None


def send(rack: Rack, daemon: str, number: signal.Signals) -> None:
    pid = daemons.pid_of(rack.plan, daemon)
    assert pid is not None, f"{daemon} does not run"
    os.kill(pid, number)


def cut_off(rack: Rack, controller: ControllerPlan) -> None:
    """Its machine is lost for all others: nothing answers, and nobody is told."""
    rack.run_in("switch", "ip", "link", "set", controller.name, "down")


def mend(rack: Rack) -> None:
    """Every controller and every member of etcd runs, and is connected."""
    for each in rack.plan.controllers:
        rack.run_in("switch", "ip", "link", "set", each.name, "up")
    for each in rack.plan.controllers:
        if daemons.pid_of(rack.plan, each.etcd) is None:
            daemons.start_etcd(rack.plan, each)
        if daemons.pid_of(rack.plan, each.daemon) is None:
            rack.start_controller(each.number)
        else:
            send(rack, each.daemon, signal.SIGCONT)
