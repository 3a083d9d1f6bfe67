"""A few hosts and VEs for tests of the network: namespaces joined by a switch, without LXC."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from kit import netns
from kit.netdriver import HostDriver, host_driver

OUTSIDE = "10.88.0.100"


@dataclass
class OverlayHost:
    """A host's namespace with its network code."""

    name: str
    namespace: str
    address: str
    driver: HostDriver


@dataclass
class Guest:
    """A VE's namespace. `device` is its end on the host where it is now."""

    namespace: str
    ip: str
    mac: str
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    device: str = ""

    def pings(self, target: str, *options: str) -> bool:
        """Whether one of a few echoes is answered."""
        done = netns.run(
            self.namespace, "ping", "-q", "-c2", "-i0.2", "-W1", *options, target, check=False
        )
        return done.returncode == 0

    def send(self, *frames: bytes) -> None:
        """Puts frames on the wire as they are."""
        code = (
            "import socket,sys\n"
            "s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\n"
            "s.bind(('eth0',0))\n"
            "for f in sys.argv[1:]: s.send(bytes.fromhex(f))\n"
        )
        netns.run(self.namespace, sys.executable, "-Ic", code, *[each.hex() for each in frames])


@contextmanager
def listening(namespace: str, device: str, last: bytes) -> Iterator[list[bytes]]:
    """Collects the frames that come in at `device`, up to the one that contains `last`; complete after the block."""
    code = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3))\n"
        "s.bind((sys.argv[1],3)); s.settimeout(10)\n"
        "last=bytes.fromhex(sys.argv[2]); print('ready',flush=True)\n"
        "while True:\n"
        "  f,a=s.recvfrom(65535)\n"
        "  if a[2]==4: continue\n"
        "  print(f.hex(),flush=True)\n"
        "  if last in f: break\n"
    )
    argv = netns.enter(namespace, [sys.executable, "-Ic", code, device, last.hex()])
    frames: list[bytes] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield frames
            out, _ = process.communicate(timeout=15)
            assert process.returncode == 0, "the last frame did not come"
            frames.extend(bytes.fromhex(line) for line in out.split())
        finally:
            process.kill()


class Overlay:
    """Hosts h1… at 10.88.0.11…, one machine outside at OUTSIDE."""

    def __init__(self, stack: ExitStack, hosts: int) -> None:
        self._stack = stack
        self._guests = 0
        switch, self.outside = stack.enter_context(netns.namespaces("sw", "out"))
        netns.ip("-n", switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        netns.ip("-n", switch, "link", "set", "br0", "up")
        self._switch = switch
        self._plug(self.outside, "out", OUTSIDE)
        self.hosts = [self._host(number) for number in range(1, hosts + 1)]

    def setup_all(self, **network: object) -> None:
        for host in self.hosts:
            host.driver.setup(self.peers_of(host), **network)

    def peers_of(self, host: OverlayHost) -> dict[str, str]:
        return {other.name: other.address for other in self.hosts if other is not host}

    def guest(self, host: OverlayHost, ip: str) -> Guest:
        """A VE with a card that runs on the host."""
        self._guests += 1
        name = self._stack.enter_context(netns.namespace(f"g{self._guests}"))
        last = [int(part) for part in ip.split(".")]
        guest = Guest(name, ip, "02:00:" + ":".join(f"{part:02x}" for part in last))
        self.start(guest, host)
        return guest

    def start(self, guest: Guest, host: OverlayHost) -> None:
        """Attaches and plugs it in; it must not run elsewhere."""
        nic = host.driver.call("attach", uid=guest.uid, ip=guest.ip, mac=guest.mac)
        guest.device = nic["device"]
        netns.cable((host.namespace, guest.device), (guest.namespace, "eth0"))
        netns.ip("-n", host.namespace, "link", "set", guest.device, "master", nic["bridge"])
        own = ("-n", guest.namespace)
        netns.ip(*own, "link", "set", "eth0", "address", nic["mac"], "mtu", str(nic["mtu"]))
        netns.ip(*own, "addr", "add", f"{nic['address']}/{nic['prefix_length']}", "dev", "eth0")
        netns.ip(*own, "route", "add", "default", "via", nic["gateway"])

    def unplug(self, guest: Guest, host: OverlayHost) -> None:
        """As when it stops: its device goes."""
        netns.ip("-n", host.namespace, "link", "del", guest.device)
        host.driver.call("detach", uid=guest.uid)

    def _host(self, number: int) -> OverlayHost:
        name, address = f"h{number}", f"10.88.0.{10 + number}"
        namespace = self._stack.enter_context(netns.namespace(name))
        self._plug(namespace, name, address)
        driver = self._stack.enter_context(host_driver(namespace, address))
        return OverlayHost(name, namespace, address, driver)

    def _plug(self, namespace: str, port: str, address: str) -> None:
        netns.cable((namespace, "up0"), (self._switch, port))
        netns.ip("-n", self._switch, "link", "set", port, "master", "br0")
        netns.ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "up0")


@contextmanager
def overlay(*, hosts: int) -> Iterator[Overlay]:
    """Removes everything afterwards, also what an earlier killed run left."""
    netns.sweep()
    with ExitStack() as stack:
        yield Overlay(stack, hosts)
