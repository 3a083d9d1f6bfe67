"""`python -m devrack up|down|status [--name NAME]`: what `make rack` and `make down` call."""

import argparse
import os
import sys
import time

from devrack import daemons, files, network
from devrack.down import down, forget_user, leftovers
from devrack.plan import RackPlan
from devrack.shell import CommandFailed
from devrack.up import RackFailed, Say, adopt_user, populate, ready_hosts, up, vectl


def _say_since(start: float) -> Say:
    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:5.1f} s] {text}", flush=True)

    return say


def _up(plan: RackPlan) -> None:
    say = _say_since(time.monotonic())
    if plan.complete.exists() and ready_hosts(plan) == len(plan.hosts):
        say("the rack is up already; `make down` takes it away")
    else:
        up(plan, say)
        populate(plan, say)
        plan.complete.touch()
    if plan.uplink:
        adopt_user(plan)
    say("done")
    _report(plan)


def _report(plan: RackPlan) -> None:
    print()
    print(vectl(plan, "list"))
    print("Metrics:")
    print(f"  controller  http://{plan.controller_address}:7480/metrics")
    for host in plan.hosts:
        print(f"  agent {host.name}    http://{plan.address(host)}:7481/metrics")
    print(f"  prometheus --config.file={files.prometheus_folder(plan)}/prometheus.yml scrapes them")
    print()
    print("Next:")
    print(
        "  vectl host list                      the three hosts, what they can and what they hold"
    )
    print("  vectl create web-9 --image busybox   one more VE")
    print("  vectl exec -it web-0 -- sh           a shell in a VE")
    print("  vectl show web-0                     all about it, with its events")
    print("  make down                            takes the rack away")
    print(f"Logs are in {plan.run}.")


def _down(plan: RackPlan) -> None:
    down(plan)
    if plan.uplink:
        forget_user(plan)
    left = leftovers(plan)
    for line in left:
        print(f"left: {line}", file=sys.stderr)
    if left:
        sys.exit(1)
    print(f"rack {plan.name} is gone")


def main() -> int:
    """0: done; 1: failed, with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="devrack", description=__doc__)
    parser.add_argument("verb", choices=["up", "down", "status"])
    parser.add_argument("--name", default="rack")
    parser.add_argument(
        "--isolated",
        action="store_true",
        help="no link to this machine's network, and nothing for this user's vectl",
    )
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("Error: a rack needs root\nHint: run it with sudo, or as root", file=sys.stderr)
        return 1
    plan = RackPlan(name=arguments.name, uplink=not arguments.isolated)
    verbs = {"up": _up, "down": _down, "status": _status}
    try:
        verbs[arguments.verb](plan)
    except (CommandFailed, RackFailed, TimeoutError) as error:
        print(
            f"Error: {error}\nHint: `make down` removes what is there; logs: {plan.run}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "\ninterrupted; `make down` removes what is there, `make rack` starts over",
            file=sys.stderr,
        )
        return 130
    return 0


def _status(plan: RackPlan) -> None:
    controllers = (controller.daemon for controller in plan.controllers)
    names = [*controllers, "lxcfs", *(f"{host.name}-agent" for host in plan.hosts)]
    for name in names:
        print(f"{name:12} {daemons.pid_of(plan, name) or 'not running'}")
    for namespace in network.existing(plan):
        print(f"namespace {namespace}")


if __name__ == "__main__":
    sys.exit(main())
