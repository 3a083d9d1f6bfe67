"""Several controllers as real processes on one etcd, for what only processes can do: be killed, stand still, end."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kit.certs import issue, make_ca
from veapi.channel import Identity
from vectl.context import Context

CLUSTER = "rack"
PROGRAM = Path(sys.executable).parent / "vecontroller"
MORTAL = ("setpriv", "--pdeathsig", "KILL")  # dies with the test run
CONFIG = """
name = "{name}"
cluster = "rack"
data = "{folder}/{name}"
listen = ["{address}"]
address = "{address}"
[tls]
ca = "{tls.ca}"
cert = "{tls.cert}"
key = "{tls.key}"
[etcd]
endpoints = {endpoints}
ca = "{etcd.ca}"
cert = "{etcd.cert}"
key = "{etcd.key}"
"""


class Controller:
    """One of them. `address` is host:port, the same over restarts."""

    def __init__(self, name: str, config: Path, address: str) -> None:
        self.name = name
        self.address = address
        self.log_path = config.with_suffix(".log")
        self._config = config
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            argv = [*MORTAL, str(PROGRAM), "run", "--config", str(self._config)]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        """By SIGKILL, also of a stopped one."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(20)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def terms(self) -> int:
        """How often it began to lead."""
        return len(re.findall(r"\bleading\b", self.log()))


class Standbys:
    """All controllers, and the identities of user `ann` and host `h1`."""

    def __init__(self, folder: Path, endpoints: Sequence[str], etcd: Identity, names: str) -> None:
        ca = make_ca(folder / "ca", CLUSTER)
        identity = issue(ca, f"controller.{CLUSTER}")
        self.user = issue(ca, f"ann.user.{CLUSTER}")
        self.host = issue(ca, f"h1.host.{CLUSTER}")
        self.all: list[Controller] = []
        for name in names.split():
            config, address = folder / f"{name}.toml", f"127.0.0.1:{_free_port()}"
            text = CONFIG.format(
                name=name,
                folder=folder,
                address=address,
                tls=identity,
                endpoints=list(endpoints),
                etcd=etcd,
            )
            config.write_text(text)
            self.all.append(Controller(name, config, address))

    def context(self, *controllers: Controller) -> Context:
        """For clients; of all when none is named."""
        return Context(
            name=CLUSTER,
            endpoints=tuple(each.address for each in controllers or self.all),
            cluster=CLUSTER,
            ca=self.user.ca,
            cert=self.user.cert,
            key=self.user.key,
        )

    def until_leads(self, *controllers: Controller, term: int = 1) -> Controller:
        """The first of these that leads for the `term`-th time."""
        deadline = time.monotonic() + 60
        while True:
            for each in controllers:
                if each.terms() >= term:
                    return each
            assert time.monotonic() < deadline, [each.log()[-2000:] for each in controllers]
            time.sleep(0.02)


@contextmanager
def standbys(
    folder: Path, endpoints: Sequence[str], etcd: Identity, names: str = "c1 c2"
) -> Iterator[Standbys]:
    """The first one leads, the others stand by."""
    found = Standbys(folder, endpoints, etcd, names)
    started: list[Controller] = []
    try:
        for each in found.all:
            each.start()
            started.append(each)
            if len(started) == 1:
                found.until_leads(each)
        yield found
    finally:
        for each in started:
            each.end()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
