"""A rack whose hosts are lost, come back, are taken out and let in again; and how it is made whole after any test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devrack import cgroups, daemons
from devrack.plan import HostPlan
from kit.rack import Rack, running_rack, until

HOSTS = ("h1", "h2", "h3", "h4")
PLANS = tuple(HostPlan(name, f"r{number}", number) for number, name in enumerate(HOSTS, 1))
SMALL = ("--image", "busybox", "--cpu", "0.1", "--memory", "32M", "--disk", "256M")


@contextmanager
def lossy_rack(suffix: str) -> Iterator["LossyRack"]:
    """Four hosts, each of a rack of its own, so that one may be lost without a storm."""
    with running_rack(suffix, hosts=PLANS) as rack:
        yield LossyRack(rack)


class LossyRack:
    """What a test does to hosts. `mend` undoes all of it."""

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        self.vectl = rack.vectl

    # VEs.

    def make(self, name: str, host: str, policy: str = "recreate") -> dict[str, Any]:
        """A VE that runs there, and may live elsewhere."""
        wish = ("--prefer", f"rack={self.rack.host(host).rack} weight 100")
        self.vectl("create", name, *SMALL, *wish, "--on-host-loss", policy)
        made = self.rack.ve(name)
        assert made["placement"]["host"] == host
        assert self.runs_on(host, made["uid"])
        if policy == "recreate":
            self.until_armed(name)
        return made

    def until_armed(self, name: str) -> None:
        """Its host has confirmed that, so that its loss may move the VE."""
        until(
            lambda: int(self.rack.ve(name)["status"].get("armed_generation", 0)),
            within_s=20,
            what=f"{name} is armed",
        )

    def runs_on(self, host: str, uid: str) -> bool:
        """By the kernel alone: nobody is asked."""
        return bool(self.processes_of(host, uid))

    def processes_of(self, host: str, uid: str) -> set[int]:
        return cgroups.processes(f"{self._group(host)}/ve/{uid}")

    def _group(self, host: str) -> str:
        return f"{self.rack.plan.cgroup}/{host}"

    def message(self, name: str) -> str:
        """Why it is as it is."""
        return str(self.rack.ve(name)["status"].get("message", ""))

    def until_runs_elsewhere(self, name: str, than: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            ve = self.rack.ve(name)
            elsewhere = ve["placement"]["host"] != than
            return ve if elsewhere and ve["status"]["state"] == "Running" else None

        ve = until(found, within_s=60, what=f"{name} runs elsewhere")
        assert ve is not None
        assert self.runs_on(ve["placement"]["host"], ve["uid"])
        return ve

    # Hosts.

    def host(self, name: str) -> dict[str, Any]:
        shown = self.vectl("host", "show", name, "-o", "json").json()
        assert isinstance(shown, dict)
        return shown

    def until_silent(self, name: str) -> None:
        until(lambda: self.host(name)["state"] == "Silent", within_s=30, what=f"{name} is Silent")

    def lose(self, name: str, *, spare: str = "") -> None:
        """As when the power goes: agent, vefence and VEs die at once. `spare`: uid of a VE that lives on."""
        self.rack.kill(f"{name}-agent")
        self.rack.kill(f"{name}-vefence")
        if not spare:
            cgroups.kill(self._group(name))
            return
        for group in self._ve_groups(name) - {spare}:
            cgroups.kill(f"{self._group(name)}/ve/{group}")

    def _ve_groups(self, host: str) -> set[str]:
        return {path.name for path in (cgroups.tracker() / self._group(host) / "ve").iterdir()}

    def bring_back(self, name: str) -> None:
        """Its daemons, as at a boot."""
        if daemons.pid_of(self.rack.plan, f"{name}-vefence") is None:
            daemons.start_vefence(self.rack.plan, self.rack.host(name))
        if daemons.pid_of(self.rack.plan, f"{name}-agent") is None:
            self.rack.start_agent(name)

    def link(self, host: str, state: str) -> None:
        """`state`: up or down."""
        self.rack.run_in(host, "ip", "link", "set", "eth0", state)

    # A second machine.

    def start_clone(self, of: str, on: str) -> None:
        """An agent with a copied certificate on another machine, with a state of its own."""
        plan, own = self.rack.plan, self.rack.plan.host_state(self.rack.host(on))
        text = (own / "agent.toml").read_text()
        text = text.replace(str(own), f"{own}/clone").replace(f'host = "{on}"', f'host = "{of}"')
        text = text.replace(f"/tls/{on}/", f"/tls/{of}/")
        text = text.replace(f'root = "{plan.cgroup}/{on}"', f'root = "{plan.cgroup}/{on}-clone"')
        text = text.replace(f'/{on}/fence"', f'/{on}/clone-fence"')
        (own / "clone").mkdir(exist_ok=True)
        config = own / "clone" / "agent.toml"
        config.write_text(text)
        argv = [str(plan.bin / "veagent"), "--config", str(config)]
        holder = daemons.pid_of(plan, f"{on}-holder")
        daemons.spawn(plan, "clone", ["nsenter", "-t", str(holder), "-m", "-n", *argv])

    # The control plane.

    def kill_control_plane(self) -> None:
        """The controller and its etcd, at once."""
        etcds = self.rack.processes("etcd", "--data-dir")
        self.rack.kill("controller")
        for pid in etcds:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, 9)
        until(lambda: not self.rack.processes("etcd", "--data-dir"), within_s=10, what="no etcd")

    def until_answers(self) -> None:
        until(
            lambda: self.vectl("version", code=None).code == 0,
            within_s=30,
            what="the controller answers",
        )

    def switches(self) -> dict[str, Any]:
        shown = self.vectl("cluster", "status", "-o", "json").json()
        assert isinstance(shown, dict)
        return shown

    def until_all_confirm(self) -> None:
        """Every host goes by the last disarm or arm."""
        until(
            lambda: not self.switches().get("unconfirmed"),
            within_s=30,
            what="every host has confirmed",
        )

    # After each test.

    def mend(self) -> None:
        """Everything runs, is connected, armed and open to VEs; and there are none."""
        self.rack.kill("clone")
        if daemons.pid_of(self.rack.plan, "controller") is None:
            self.rack.start_controller()
        self.until_answers()
        known = {host["name"] for host in self.hosts()}
        for name in HOSTS:
            self.link(name, "up")
            if name not in known:
                self.vectl("host", "add", name, code=None)  # also one that is to come yet
            self.bring_back(name)
        switches = self.switches()
        if switches.get("disarmed_until"):
            self.vectl("cluster", "arm")
        if switches.get("moves_stopped"):
            self.vectl("host", "resume-moves", "--yes")
        self.rack.until_ready()
        for host in self.hosts():
            if host.get("cordoned"):
                self.vectl("host", "uncordon", host["name"])
        self.rack.purge_all()
        self._purge_orphans()
        self.until_all_confirm()

    def hosts(self) -> list[dict[str, Any]]:
        items = self.vectl("host", "list", "-o", "json").json()["items"]
        assert isinstance(items, list)
        return items

    def _purge_orphans(self) -> None:
        for orphan in self.vectl("orphan", "list", "-o", "json").json()["items"]:
            self.vectl("orphan", "purge", orphan["uid"], "--host", orphan["host"], "--yes")
