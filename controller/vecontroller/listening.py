"""The gRPC server on all its addresses, by mTLS; a unix socket is for its owner only."""

import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import grpc.aio
import structlog

from veapi.channel import SERVER_OPTIONS, Identity, server_credentials
from veapi.errors import Conflict, Unavailable

log = structlog.get_logger()
STOP_GRACE_S = 0.2
_SOCKET_MODE = 0o600


@asynccontextmanager
async def listening(
    addresses: Sequence[str],
    identity: Identity,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    add_services: Callable[[grpc.aio.Server], None],
) -> AsyncIterator[dict[str, int]]:
    """Serves until the block ends; gives the port of each address (0 asks for a free one).

    Addresses are host:port or unix:/path. Unavailable or Conflict when one can't be had.
    """
    server = grpc.aio.server(interceptors=list(interceptors), options=SERVER_OPTIONS)
    add_services(server)
    credentials = server_credentials(identity)
    paths = [Path(a.removeprefix("unix:")) for a in addresses if a.startswith("unix:")]
    try:
        for path in paths:
            _make_way(path)
        ports = {address: _bind(server, address, credentials) for address in addresses}
        await server.start()
        log.info("listening", addresses=list(addresses))
        yield ports
    finally:
        await server.stop(STOP_GRACE_S)
        for path in paths:
            path.unlink(missing_ok=True)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    mask = os.umask(0o777 & ~_SOCKET_MODE) if address.startswith("unix:") else None
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise Unavailable(
            f"can't listen on {address}",
            hint="is it an address of this machine, and free? see `listen` in controller.toml",
        ) from None
    finally:
        if mask is not None:
            os.umask(mask)


def _make_way(path: Path) -> None:
    """Removes the socket of a controller that died; Conflict when one lives, or the path is something else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict(
                f"{path} is in the way and no socket", hint="remove it, or listen elsewhere"
            )
        if _is_served(path):
            raise Conflict(f"another program listens on {path}", hint="stop it first")
        path.unlink(missing_ok=True)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
