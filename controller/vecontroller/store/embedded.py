"""An etcd of our own, for one machine: started, watched, restarted and stopped by the controller, on loopback by mTLS.

It outlives a controller that is killed: the next one *adopts* it. So that no moment is left in which it runs and nobody
knows, it writes its process id and start time into the pid file itself, before it becomes etcd. A lock keeps two controllers
from sharing a data directory.
"""

import asyncio
import fcntl
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

import structlog

from veapi.channel import Identity
from veapi.clock import Clock
from veapi.errors import Conflict, RemoteFailed, Unavailable
from vecontroller.identity import EtcdIdentity
from vecontroller.store.etcd import EtcdStore
from vecontroller.store.processes import Living, find_living

log = structlog.get_logger()
START_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0
LAST_BACKOFF_S = 5.0
STEADY_AFTER_S = 10.0
LOG_LIMIT_BYTES = 8 << 20
QUOTA_BYTES = 4 << 30
COMPACTION_KEEPS = 10_000
"""Revisions of history: twice the gap at which a watch lists again anyway."""
_RECORD_AND_RUN = 'cat "/proc/$$/stat" >"$0" && exec "$@"'


class EmbeddedEtcd:
    """`start`, then `run` as a task, then `stop`. `restarts` counts the deaths that were repaired."""

    def __init__(
        self,
        data_dir: Path,
        *,
        identity: EtcdIdentity,
        clock: Clock,
        client_port: int = 0,
        peer_port: int = 0,
    ) -> None:
        """`data_dir` is etcd's alone. Ports of 0: those of last time, or free ones."""
        self.restarts = 0
        self._dir = data_dir
        self._identity = identity
        self._clock = clock
        self._asked_ports = (client_port, peer_port)
        self._ports = (0, 0)
        self._living: Living | None = None
        self._lock: IO[str] | None = None
        self._stopping = False

    @property
    def endpoint(self) -> str:
        """host:port for clients, the same over restarts."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def client_identity(self) -> Identity:
        """What opens it."""
        identity = self._identity
        return Identity(identity.ca, identity.client_cert, identity.client_key)

    @property
    def pid(self) -> int:
        """Of the etcd process; 0 when there is none."""
        return self._living.pid if self._living is not None else 0

    async def start(self) -> None:
        """Adopts the etcd of this directory if it lives, else starts one; returns once it answers.

        Unavailable without an `etcd` program, Conflict when another controller uses the directory, RemoteFailed with
        etcd's last words when it does not come up.
        """
        program = shutil.which("etcd")
        if program is None:
            raise Unavailable(
                "there is no `etcd` program on this machine",
                hint="install it (on Debian: apt install etcd-server), "
                "or name an external cluster by [etcd] endpoints in controller.toml",
            )
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = locked(self._dir)
        self._ports = self._remembered_ports()
        await self._adopt(program)
        if self._living is None:
            self._ports = self._usable_ports()
            self._spawn(program)
        await self._answers()

    async def run(self) -> None:
        """Restarts etcd whenever it ends: at once, then with growing pauses up to 5 s. Returns after `stop`."""
        pause_s = 0.0
        while self._living is not None:
            began = self._clock.boot()
            await self._living.ended()
            if self._stopping:
                return
            if self._clock.boot() - began > STEADY_AFTER_S:
                pause_s = 0.0
            log.error("etcd ended", pid=self.pid, pause_s=pause_s, log=str(self._log_path))
            await self._clock.sleep(pause_s)
            pause_s = min(max(0.1, pause_s * 2), LAST_BACKOFF_S)
            self.restarts += 1
            self._living.forget()
            self._try_again()

    def _try_again(self) -> None:
        try:
            self._spawn(shutil.which("etcd") or "etcd")
        except OSError as error:
            log.error("etcd can't be started", why=str(error))  # noqa: TRY400 - no traceback

    async def stop(self) -> None:
        """Ends etcd cleanly (killed after 10 s) and releases the directory. May be called twice."""
        self._stopping = True
        if self._living is not None:
            await self._living.end(STOP_WITHIN_S)
            self._living = None
            self._pid_path.unlink(missing_ok=True)
        self.abandon()

    def abandon(self) -> None:
        """Releases the directory and leaves etcd running, as a killed controller does."""
        self._stopping = True
        if self._living is not None:
            self._living.forget()
            self._living = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _log_path(self) -> Path:
        return self._dir / "etcd.log"

    @property
    def _pid_path(self) -> Path:
        return self._dir / "etcd.pid"

    def _remembered_ports(self) -> tuple[int, int]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            ports = json.loads((self._dir / "ports.json").read_text())
            return int(ports["client"]), int(ports["peer"])
        return (0, 0)

    def _usable_ports(self) -> tuple[int, int]:
        """Those that were asked for, else the remembered ones if they are still free, else free ones; noted."""
        client, peer = (
            asked or (old if _is_free(old) else _free_port())
            for asked, old in zip(self._asked_ports, self._ports, strict=True)
        )
        path = self._dir / "ports.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"client": client, "peer": peer}))
        fresh.replace(path)
        return client, peer

    async def _adopt(self, program: str) -> None:
        """Takes over the etcd of the pid file, if it runs as we would run it now; stops it else."""
        living = find_living(self._pid_path)
        if living is None:
            return
        wanted = self._command(program)
        command = await _settled_command(living, self._clock)
        asked_others = any(
            a and a != b for a, b in zip(self._asked_ports, self._ports, strict=True)
        )
        if command == wanted and not asked_others:
            log.info("etcd adopted", pid=living.pid)
            self._living = living
        elif self._data_dir_flag in command:
            log.info("etcd runs otherwise than wanted; stopping it", pid=living.pid)
            await living.end(STOP_WITHIN_S)
        else:
            living.forget()

    @property
    def _data_dir_flag(self) -> str:
        return f"--data-dir={self._dir / 'data'}"

    def _command(self, program: str) -> list[str]:
        client, peer = (f"https://127.0.0.1:{port}" for port in self._ports)
        identity = self._identity
        return [
            program,
            "--name=embedded",
            self._data_dir_flag,
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=embedded={peer}",
            *_tls_flags("", identity),
            *_tls_flags("peer-", identity),
            "--max-txn-ops=1024",
            f"--quota-backend-bytes={QUOTA_BYTES}",
            "--auto-compaction-mode=revision",
            f"--auto-compaction-retention={COMPACTION_KEEPS}",
            "--heartbeat-interval=100",
            "--election-timeout=1000",
            "--enable-grpc-gateway=false",
            "--logger=zap",
            "--log-level=warn",
            "--log-outputs=stderr",
        ]

    def _spawn(self, program: str) -> None:
        with self._open_log() as output:
            process = subprocess.Popen(
                [
                    *("/bin/sh", "-c", _RECORD_AND_RUN, str(self._pid_path)),
                    *self._command(program),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={key: value for key, value in os.environ.items() if not key.startswith("ETCD")},
                start_new_session=True,
            )
        self._living = Living.child(process)
        log.info("etcd started", pid=process.pid, endpoint=self.endpoint)

    def _open_log(self) -> IO[bytes]:
        path = self._log_path
        if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    async def _answers(self) -> None:
        """Waits until etcd answers a linearizable read."""
        living = self._living
        assert living is not None
        store = EtcdStore([self.endpoint], self.client_identity, read_timeout_s=START_WITHIN_S)
        ended = asyncio.ensure_future(living.ended())
        answer = asyncio.ensure_future(store.head())
        try:
            await asyncio.wait((ended, answer), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise RemoteFailed(
                    f"etcd ended at once: {self._last_words()}", hint=f"see {self._log_path}"
                )
            answer.result()
        finally:
            ended.cancel()
            answer.cancel()
            await store.aclose()

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self._log_path.read_text(errors="replace").strip().splitlines()
            return lines[-1][-500:] if lines else "it said nothing"
        return "it has no log"


def locked(folder: Path) -> IO[str]:
    """Holds the folder of an embedded etcd until it is closed. Conflict when somebody else does."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Conflict(
            f"another controller uses {folder}",
            hint="stop it first, or give this one a data directory of its own",
        ) from None
    return lock


@asynccontextmanager
async def running_etcd(
    data_dir: Path, *, identity: EtcdIdentity, clock: Clock
) -> AsyncIterator[EmbeddedEtcd]:
    """A started etcd that is kept alive in the background, and stopped at the end."""
    etcd = EmbeddedEtcd(data_dir, identity=identity, clock=clock)
    try:
        await etcd.start()
        keeper = asyncio.create_task(etcd.run())
        try:
            yield etcd
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
    finally:
        await etcd.stop()


def _tls_flags(prefix: str, identity: EtcdIdentity) -> list[str]:
    return [
        f"--{prefix}trusted-ca-file={identity.ca}",
        f"--{prefix}cert-file={identity.server_cert}",
        f"--{prefix}key-file={identity.server_key}",
        f"--{prefix}client-cert-auth=true",
    ]


async def _settled_command(living: Living, clock: Clock) -> list[str]:
    """Its command line, once it is etcd: it is a shell for a moment."""
    for _ in range(20):
        command = living.command()
        if command[:1] != ["/bin/sh"]:
            return command
        await clock.sleep(0.05)
    return living.command()


def _is_free(port: int) -> bool:
    if not port:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
