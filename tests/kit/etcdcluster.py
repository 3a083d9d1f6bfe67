"""A real etcd cluster of three for tests, on loopback by mTLS, whose members can be killed, frozen and started again."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from veapi.channel import Identity
from veapi.errors import VerackError
from vecontroller.identity import create_ca, issue_etcd
from vecontroller.store.etcd import EtcdStore

MORTAL = ("setpriv", "--pdeathsig", "KILL")  # dies with the test run


class Member:
    """`endpoint` is host:port for clients."""

    def __init__(self, name: str, folder: Path, tls: Identity, ports: tuple[int, int]) -> None:
        self.name = name
        self.endpoint = f"127.0.0.1:{ports[0]}"
        self.peer = f"https://127.0.0.1:{ports[1]}"
        self._folder = folder
        self._tls = tls
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: str) -> None:
        files = [f"cert-file={self._tls.cert}", f"key-file={self._tls.key}"]
        files += [f"trusted-ca-file={self._tls.ca}", "client-cert-auth=true"]
        argv = [
            "etcd",
            f"--name={self.name}",
            f"--data-dir={self._folder / self.name}",
            f"--listen-client-urls=https://{self.endpoint}",
            f"--advertise-client-urls=https://{self.endpoint}",
            f"--listen-peer-urls={self.peer}",
            f"--initial-advertise-peer-urls={self.peer}",
            f"--initial-cluster={cluster}",
            *(f"--{file}" for file in files),
            *(f"--peer-{file}" for file in files),
            "--logger=zap",
            "--log-level=error",
        ]
        env = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen([*MORTAL, *argv], stdout=log, stderr=log, env=env)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        """By SIGKILL, also of a frozen one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)


class EtcdCluster:
    """`client` opens it."""

    def __init__(self, folder: Path) -> None:
        create_ca(folder / "ca", "etcd")
        self.client = issue_etcd(folder / "ca", "controller", folder / "client", member=False)
        self.members = []
        for name in ("m1", "m2", "m3"):
            tls = issue_etcd(folder / "ca", name, folder / f"{name}-tls", member=True)
            self.members.append(Member(name, folder, tls, (_free_port(), _free_port())))
        self._named = ",".join(f"{member.name}={member.peer}" for member in self.members)

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    def start(self, member: Member) -> None:
        """Again, after its end."""
        member.start(self._named)

    async def until_answers(self, *members: Member) -> None:
        """Each of these (else all) answers linearizable reads."""
        for member in members or self.members:
            store = EtcdStore([member.endpoint], self.client)
            await _until_answers(store)
            await store.aclose()

    def leader(self) -> Member:
        """Of those that run, by etcdctl."""
        deadline = time.monotonic() + 30
        while True:
            for member in self.members:
                if self._leads(member):
                    return member
            assert time.monotonic() < deadline, "no etcd leads"
            time.sleep(0.1)

    def _leads(self, member: Member) -> bool:
        identity = self.client
        argv = ["etcdctl", f"--endpoints=https://{member.endpoint}", f"--cacert={identity.ca}"]
        argv += [f"--cert={identity.cert}", f"--key={identity.key}", "--command-timeout=1s"]
        done = subprocess.run(
            [*argv, "endpoint", "status", "-w", "fields"],
            env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        said = dict(line.split(" : ", 1) for line in done.stdout.splitlines() if " : " in line)
        return bool(said) and said['"MemberID"'] == said['"Leader"']


@contextmanager
def etcd_cluster(folder: Path) -> Iterator[EtcdCluster]:
    """Three members that answer; gone afterwards, with their data."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = EtcdCluster(folder)
    try:
        for member in cluster.members:
            cluster.start(member)
        asyncio.run(cluster.until_answers())
        yield cluster
    finally:
        for member in cluster.members:
            member.end()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def store_on(cluster: EtcdCluster, *first: Member) -> AsyncIterator[EtcdStore]:
    """A client of all members that begins with `first`."""
    rest = [member for member in cluster.members if member not in first]
    store = EtcdStore([member.endpoint for member in (*first, *rest)], cluster.client)
    try:
        yield store
    finally:
        await store.aclose()


async def _until_answers(store: EtcdStore) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await store.head()
            except VerackError:
                await asyncio.sleep(0.1)
            else:
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
