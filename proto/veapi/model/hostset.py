"""What a host is told, and what it tells."""

from collections.abc import Mapping

from veapi.model.basics import Action, Digest, Uid, Value
from veapi.model.cluster import Network
from veapi.model.ve import RootWish, SnapshotWish, Spec, VEStatus


class Order(Value, frozen=True, kw_only=True, order=True):
    """Orders the sets of a host: the older loses."""

    incarnation: int = 0
    epoch: int = 0
    revision: int = 0


class SetEntry(Value, frozen=True, kw_only=True):
    """One VE of a host's set. `run_generation`: what its guest switched off at this generation or later stays off.

    `policy_generation`: that at which on_host_loss changed last. `root_since`: a root of an earlier placement is stale.
    """

    uid: Uid
    name: str
    project: str
    action: Action
    spec: Spec
    generation: int
    placement_generation: int
    restart_seq: int
    stop_timeout_s: float
    image_digest: Digest
    ip: str
    mac: str
    labels: Mapping[str, str] = {}
    root: RootWish = RootWish()
    snapshots: tuple[SnapshotWish, ...] = ()
    run_generation: int = 0
    policy_generation: int = 0
    root_since: int = 0


class PeerHost(Value, frozen=True, kw_only=True):
    name: str
    address: str


class WantedImage(Value, frozen=True, kw_only=True):
    """An image of a host's set. `spare`: it holds it and need not, as enough others do or it was deleted."""

    digest: Digest
    blob_digest: str
    spare: bool = False


class HostSet(Value, frozen=True, kw_only=True):
    """All that a host shall have. Absence of an entry destroys nothing.

    `disarmed`: no VE is fenced for now. `arming`: the cluster's count of being armed and disarmed. `unconfirmed`: the store that it comes of was
    restored, and nobody has confirmed that: what runs goes on, all else waits.
    """

    order: Order
    entries: tuple[SetEntry, ...]
    peers: tuple[PeerHost, ...] = ()
    network: Network = Network()
    images: tuple[WantedImage, ...] = ()
    arming: int = 0
    disarmed: bool = False
    unconfirmed: bool = False


class VEReport(Value, frozen=True, kw_only=True):
    """What an agent reports of one VE. `gone`: nothing of it is left; `orphan`: no set names it.

    `kept`: it is down, and root and record are kept as asked. `entry`: of an orphan, the last that was asked of it.
    """

    uid: Uid
    name: str
    project: str
    status: VEStatus
    gone: bool = False
    orphan: bool = False
    kept: bool = False
    entry: SetEntry | None = None
