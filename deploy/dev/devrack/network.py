"""The rack's wires: a switch namespace with a bridge, a namespace per host with a link to it."""

from pathlib import Path

from devrack.plan import RackPlan
from devrack.shell import run

NETNS = Path("/run/netns")


def create(plan: RackPlan) -> None:
    """Makes switch, hosts and links; CommandFailed when something is in the way."""
    run(["ip", "netns", "add", plan.switch])
    _batch(
        plan.switch,
        "link set lo up",
        "link add sw0 type bridge",
        f"addr add {plan.switch_address}/24 dev sw0",
        "link set sw0 up",
    )
    for host in plan.hosts:
        _machine(plan, host.name, plan.address(host))
    for controller in plan.controllers:
        if plan.controller_count > 1:
            _machine(plan, controller.name, plan.address_of(controller))
    if plan.uplink:
        _uplink(plan)


def _machine(plan: RackPlan, name: str, address: str) -> None:
    """A namespace with a link to the switch, whose end there has the machine's name."""
    namespace = plan.namespace(name)
    run(["ip", "netns", "add", namespace])
    _batch(plan.switch, f"link add {name} type veth peer name eth0 netns {namespace}")
    _batch(plan.switch, f"link set {name} master sw0 up")
    _batch(
        namespace,
        "link set lo up",
        f"addr add {address}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {plan.switch_address}",
    )


def _uplink(plan: RackPlan) -> None:
    device = plan.uplink_device
    run(
        [
            "ip",
            "link",
            "add",
            device,
            "type",
            "veth",
            "peer",
            "name",
            "uplink",
            "netns",
            plan.switch,
        ]
    )
    _batch(plan.switch, "link set uplink master sw0 up")
    run(["ip", "addr", "add", f"{plan.subnet}.254/24", "dev", device])
    run(["ip", "link", "set", device, "up"])


def _batch(namespace: str, *lines: str) -> None:
    run(["ip", "-n", namespace, "-batch", "-"], text_in="\n".join(lines) + "\n")


def delete(plan: RackPlan) -> None:
    """Removes whatever of it exists. The links go with their namespaces."""
    run(["ip", "link", "del", plan.uplink_device], check=False)
    for namespace in existing(plan):
        run(["ip", "netns", "del", namespace], check=False)


def existing(plan: RackPlan) -> list[str]:
    """Names of the rack's namespaces that exist now."""
    if not NETNS.exists():
        return []
    return sorted(
        path.name for path in NETNS.iterdir() if path.name.startswith(f"verack-{plan.name}-")
    )
