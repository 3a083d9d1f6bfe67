"""Channels and servers: mTLS always, the options that were measured, and who is at the other end.

Names in certificates are roles: `controller.<cluster>`, `<host>.host.<cluster>`, `<name>.user.<cluster>`. A client
checks that its server has the role it means to talk to; a server asks `caller`.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import grpc.aio

from veapi.errors import Denied, InvalidInput

Options = list[tuple[str, int | str]]
MESSAGE_LIMIT_BYTES = 16 << 20
# ping_timeout: without it a frozen peer is noticed after 61 s, whatever keepalive_timeout says.
_KEEPALIVE: Options = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
]
# min_reconnect_backoff: also what a connection has for its first TLS handshake; 100 ms is too short on a busy machine.
CLIENT_OPTIONS: Options = [
    *_KEEPALIVE,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
# max_pending: more than about 1,000 new streams at once are cancelled at random without it.
SERVER_OPTIONS: Options = [
    *_KEEPALIVE,
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),
]


class Role(StrEnum):
    CONTROLLER = "controller"
    HOST = "host"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a certificate says that it is; `name` is empty for a controller."""

    role: Role
    name: str
    cluster: str


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files: the cluster's CA, and our certificate and key."""

    ca: Path
    cert: Path
    key: Path

    def read(self) -> tuple[bytes, bytes, bytes]:
        """CA, certificate, key as PEM. InvalidInput names the file that can't be read."""
        contents = []
        for path in (self.ca, self.cert, self.key):
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise InvalidInput(
                    f"can't read {path}: {error.strerror}",
                    hint="certificates come from `vecontroller cert`; check the paths in the configuration",
                ) from None
        return contents[0], contents[1], contents[2]


def controller_name(cluster: str) -> str:
    return f"controller.{cluster}"


def host_name(host: str, cluster: str) -> str:
    return f"{host}.host.{cluster}"


def user_name(user: str, cluster: str) -> str:
    return f"{user}.user.{cluster}"


def open_channel(target: str, *, server: str, identity: Identity) -> grpc.aio.Channel:
    """A channel to `target` (host:port or unix:/path) that accepts only a server whose certificate names `server`."""
    ca, cert, key = identity.read()
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    options: Options = [
        *CLIENT_OPTIONS,
        ("grpc.ssl_target_name_override", server),
        ("grpc.default_authority", server),
    ]
    return grpc.aio.secure_channel(target, credentials, options=options)


def server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """Demands a client certificate of the cluster's CA."""
    ca, cert, key = identity.read()
    return grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)


def caller(context: "grpc.aio.ServicerContext[Any, Any]", cluster: str) -> Caller:
    """Who calls, by the certificate's DNS name. Denied when it has none of ours or is of another cluster."""
    names = context.auth_context().get("x509_subject_alternative_name", [])
    for raw in names:
        found = parse_name(raw.decode(errors="replace"), cluster)
        if found is not None:
            return found
    raise Denied(
        "this certificate names no role of this cluster",
        hint=f"use one issued by `vecontroller cert` of cluster {cluster}",
    )


def parse_name(name: str, cluster: str) -> Caller | None:
    """`web.host.rack` in cluster `rack` is the host `web`; None for a name of another form or cluster."""
    if name == controller_name(cluster):
        return Caller(Role.CONTROLLER, "", cluster)
    head, _, tail = name.partition(".")
    if not head:
        return None
    for role in (Role.HOST, Role.USER):
        if tail == f"{role.value}.{cluster}":
            return Caller(role, head, cluster)
    return None
