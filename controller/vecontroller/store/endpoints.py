"""Channels to the members of an etcd cluster: one each, ours to choose from, and what their errors mean for a write.

gRPC's own balancing would keep sending a share of all calls to a frozen member; so one member is used until it fails,
then the next. etcd's errors are sorted into three: the request was surely not applied, its outcome is unknown, or it was
wrong. Only the first may ever be sent again.
"""

import asyncio
from collections.abc import Sequence
from enum import Enum

import structlog

import veapi.channel  # noqa: F401 - sets grpc's environment before it is imported

# isort: split
import grpc
import grpc.aio

from veapi.channel import CLIENT_OPTIONS, Identity, Options
from veapi.errors import VerackError
from veapi.etcd import rpc_pb2, rpc_pb2_grpc

RpcError = grpc.aio.AioRpcError
WatchCall = grpc.aio.StreamStreamCall[rpc_pb2.WatchRequest, rpc_pb2.WatchResponse]

log = structlog.get_logger()
RECEIVE_LIMIT_BYTES = 256 << 20
"""Of one message. etcd sends a revision whole: a transaction's events come in one."""
METADATA = (("hasleader", "true"),)
"""A member that is cut off from its leader fails the call instead of keeping it."""
_OPTIONS: Options = [
    *(option for option in CLIENT_OPTIONS if option[0] != "grpc.max_receive_message_length"),
    ("grpc.max_receive_message_length", RECEIVE_LIMIT_BYTES),
]


class WrongCluster(VerackError):
    """Another etcd cluster answers than the one that this store began with: nothing read before holds for it."""

    kind = "wrong_cluster"


class Outcome(Enum):
    """What an error says about the request."""

    NOT_APPLIED = "not applied"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    COMPACTED = "compacted"
    TOO_LARGE = "too large"
    """The answer was larger than we take; of a write nothing is known."""


_NEVER_SENT = ("failed to connect", "connection refused", "no leader")
_FULL = ("too many requests", "database space exceeded", "larger than max")
_REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)


def outcome_of(error: RpcError) -> Outcome:
    """Sorts an error; whatever is not known to be harmless is UNKNOWN."""
    words = (error.details() or "").lower()
    match error.code():
        case grpc.StatusCode.OUT_OF_RANGE:
            return Outcome.COMPACTED
        case grpc.StatusCode.UNAVAILABLE if any(phrase in words for phrase in _NEVER_SENT):
            return Outcome.NOT_APPLIED
        case grpc.StatusCode.RESOURCE_EXHAUSTED if any(phrase in words for phrase in _FULL):
            return Outcome.NOT_APPLIED
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Outcome.TOO_LARGE
        case code if code in _REFUSALS:
            return Outcome.REFUSED
        case _:
            return Outcome.UNKNOWN


def words_of(error: RpcError) -> str:
    return f"{error.code().name}: {error.details() or 'no details'}"


class Endpoint:
    """One member."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials) -> None:
        self.target = target
        self.channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        self.kv = rpc_pb2_grpc.KVStub(self.channel)
        self.watch = rpc_pb2_grpc.WatchStub(self.channel)
        self.maintenance = rpc_pb2_grpc.MaintenanceStub(self.channel)


class Endpoints:
    """The members, with the one that is in use. Needs a running loop. `switches` counts changes of member."""

    def __init__(self, targets: Sequence[str], identity: Identity) -> None:
        assert targets, "an etcd cluster has at least one endpoint"
        credentials = grpc.ssl_channel_credentials(*_in_order(identity))
        self._members = [Endpoint(target, credentials) for target in targets]
        self._index = 0
        self._cluster_id = 0
        self.switches = 0

    def __len__(self) -> int:
        return len(self._members)

    @property
    def current(self) -> Endpoint:
        return self._members[self._index]

    def failed(self, endpoint: Endpoint) -> None:
        """Moves on to the next member, unless somebody did already."""
        if self.current is endpoint and len(self._members) > 1:
            self._index = (self._index + 1) % len(self._members)
            self.switches += 1
            log.warning("etcd endpoint changed", left=endpoint.target, now=self.current.target)

    def check(self, header: rpc_pb2.ResponseHeader) -> None:
        """WrongCluster when the answer is of another cluster than the first one was."""
        self._cluster_id = self._cluster_id or header.cluster_id
        if header.cluster_id != self._cluster_id:
            raise WrongCluster(
                f"etcd cluster {header.cluster_id:x} answers instead of {self._cluster_id:x}",
                hint="the endpoints name members of different clusters, or etcd was made anew; "
                "check them, then restart the controller",
            )

    async def aclose(self) -> None:
        await asyncio.gather(*(member.channel.close() for member in self._members))


def _in_order(identity: Identity) -> tuple[bytes, bytes, bytes]:
    """As gRPC takes them: CA, key, certificate."""
    ca, cert, key = identity.read()
    return ca, key, cert
