"""What a rack on this machine consists of: names, addresses, folders. Pure; everything else derives from it."""

from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host: its rack label, and its number, from which address and id range follow."""

    name: str
    rack: str
    number: int


@dataclass(frozen=True, slots=True)
class ControllerPlan:
    """One controller: its name, and how its process is called, with its files."""

    number: int

    @property
    def name(self) -> str:
        return f"c{self.number}"

    @property
    def daemon(self) -> str:
        return "controller" if self.number == 1 else f"controller-{self.number}"

    @property
    def etcd(self) -> str:
        """The member of etcd beside it, in a rack of several."""
        return f"etcd-{self.number}"


@dataclass(frozen=True, slots=True)
class RackPlan:
    """A rack. Two racks of different names never share a name, folder, cgroup or id range.

    Addresses may be equal in two racks: each has network namespaces of its own.
    """

    name: str = "rack"
    subnet: str = "10.88.0"
    pool: str = "10.66.0.0/16"
    hosts: tuple[HostPlan, ...] = (
        HostPlan("h1", "r1", 1),
        HostPlan("h2", "r1", 2),
        HostPlan("h3", "r2", 3),
    )
    controller_count: int = 1
    """With 1 its etcd is embedded; several are for tests, each with a member of an etcd cluster beside it."""
    uplink: bool = True
    """A link from this machine's own network to the switch, so that curl and Prometheus reach the metrics."""
    id_base: int = 100_000_000
    ids_per_host: int = 65_536 * 1_000
    cpu: float = 4
    memory: str = "6G"
    pool_size: str = "40G"
    keep: str = "24h"
    """How long the disks of deleted VEs are kept."""
    runtime: str = "lxc"
    bin: Path = field(default=REPOSITORY / ".venv/bin")

    @property
    def python(self) -> Path:
        return self.bin / "python"

    @property
    def run(self) -> Path:
        """Sockets, pid files, logs of this boot."""
        return Path("/run/verack") / self.name

    @property
    def complete(self) -> Path:
        """Exists once everything is up, VEs too: a rack that was cut half way is not taken for a whole one."""
        return self.run / "complete"

    @property
    def state(self) -> Path:
        """Certificates, etcd's data, pools, ledgers."""
        return Path("/var/lib/verack") / self.name

    @property
    def cgroup(self) -> str:
        """Below every hierarchy's root; all of the rack's processes are in it."""
        return f"verack/{self.name}"

    @property
    def switch(self) -> str:
        """The namespace of the switch, in which a single controller runs too."""
        return self.namespace("switch")

    @property
    def socket(self) -> Path:
        """Of the first controller."""
        return self.run / "controller.sock"

    def socket_of(self, controller: ControllerPlan) -> Path:
        return self.run / f"{controller.daemon}.sock"

    @property
    def controllers(self) -> tuple[ControllerPlan, ...]:
        return tuple(ControllerPlan(number) for number in range(1, self.controller_count + 1))

    @property
    def controller_address(self) -> str:
        """Of the first."""
        return f"{self.subnet}.1"

    @property
    def switch_address(self) -> str:
        """Of the switch itself; one controller is there too."""
        return self.controller_address if self.controller_count == 1 else f"{self.subnet}.250"

    def address_of(self, controller: ControllerPlan) -> str:
        return f"{self.subnet}.{controller.number}"

    def namespace_of(self, controller: ControllerPlan) -> str:
        """Several controllers are on machines of their own: etcd's members check each other's addresses."""
        return self.switch if self.controller_count == 1 else self.namespace(controller.name)

    @property
    def uplink_device(self) -> str:
        return f"ve-{self.name}"[:15]

    @property
    def lxcfs(self) -> Path:
        """Where the rack's own lxcfs is mounted, on a mount that the hosts' mount namespaces follow."""
        return self.run / "shared" / "lxcfs"

    def namespace(self, what: str) -> str:
        return f"verack-{self.name}-{what}"

    def address(self, host: HostPlan) -> str:
        return f"{self.subnet}.{10 + host.number}"

    def host_state(self, host: HostPlan) -> Path:
        return self.state / host.name

    def fence(self, host: HostPlan) -> Path:
        """Where its agent and its vefence meet."""
        return self.run / host.name / "fence"

    def identity(self, who: str) -> Path:
        """Folder with ca.crt, tls.crt and tls.key."""
        return self.state / "tls" / who
