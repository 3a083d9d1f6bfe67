"""What a cluster has beside VEs: hosts, images, projects, its one record."""

from collections.abc import Mapping

from veapi.model.basics import Digest, HostName, Resources, Value


class ImageConfig(Value, frozen=True, kw_only=True):
    """What an image says of the program that a VE of it runs; all of it empty: /sbin/init as root.

    `user`: a name or number of the image, with or without :group.
    """

    command: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    user: str = ""
    cwd: str = ""


class Prefetch(Value, frozen=True, kw_only=True):
    """Hosts that hold an image beside those that it is kept on: all that match the selector, and those named."""

    selector: str = ""
    hosts: tuple[HostName, ...] = ()


class HeldImage(Value, frozen=True, kw_only=True):
    """An image that a host holds. What hosts say of themselves is without `config`."""

    digest: Digest
    blob_digest: str
    size_bytes: int
    blob_bytes: int
    config: ImageConfig = ImageConfig()


class Timing(Value, frozen=True, kw_only=True):
    """The cluster's one record of times, in seconds (DESIGN 6): H, F, K and M."""

    heartbeat_s: float = 1.0
    fence_after_s: float = 8.0
    kill_within_s: float = 2.0
    move_after_s: float = 12.0


class FenceFacts(Value, frozen=True, kw_only=True):
    """What a host says of its vefence. `live`: it runs and has read all that the agent told it.

    `timing`: that which the host goes by; None: nobody told it any yet. `arming`: the cluster's count of being armed and disarmed that
    is in force here, -1 until vefence has confirmed it. `refuses`: why it takes no VEs of a fenced policy now; empty when it does.
    """

    live: bool = False
    timing: Timing | None = None
    arming: int = 0
    refuses: str = ""


class HostFacts(Value, frozen=True, kw_only=True):
    """What a host says of itself: content of host/status/<name>. `metrics_address` is host:port.

    `refuses`: why it takes no new VEs now; empty when it does. `machine_id`: random, kept in the agent's state; empty: unknown.
    """

    boot_id: str
    version: str
    labels: Mapping[str, str]
    capacity: Resources
    address: str
    peer_port: int
    metrics_address: str = ""
    images: tuple[HeldImage, ...] = ()
    refuses: str = ""
    fence: FenceFacts = FenceFacts()
    machine_id: str = ""


class HostSpec(Value, frozen=True, kw_only=True):
    """What operators say of a host: content of host/spec/<name>. `taints` in the words of `veapi.wishes`.

    `powered_off_at`: since when an operator vouches that it is off, in Unix seconds; None: nobody does. `powered_off_by`: who.
    `cordoned`: it gets no new VEs. `removed_at`: when it was taken out of the cluster, in Unix seconds; None: it was not.
    `replaced`: another machine may come in its place, once.
    """

    taints: tuple[str, ...] = ()
    op_id: str = ""
    powered_off_at: float | None = None
    powered_off_by: str = ""
    cordoned: bool = False
    cordon_reason: str = ""
    removed_at: float | None = None
    replaced: bool = False


class Image(Value, frozen=True, kw_only=True):
    """Content of image/digest/<digest>."""

    digest: Digest
    blob_digest: str
    size_bytes: int
    blob_bytes: int
    created_at: float
    config: ImageConfig = ImageConfig()
    prefetch: Prefetch = Prefetch()
    op_id: str = ""


class ProjectAmounts(Value, frozen=True, kw_only=True):
    """Of all VEs of a project together: what they have, or may have (then 0 is without a limit).

    `disk_bytes`: the disk limits of VEs, which roots and snapshots share, and what deleted roots use. `ves` and `addresses`
    are without the deleted ones, `snapshots` with theirs.
    """

    ves: int = 0
    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    addresses: int = 0
    snapshots: int = 0


class Project(Value, frozen=True, kw_only=True):
    name: str
    created_at: float
    op_id: str = ""
    quota: ProjectAmounts = ProjectAmounts()


class Network(Value, frozen=True, kw_only=True):
    """The overlay network of the VEs. The gateway has the same address and MAC on every host."""

    name: str = "default"
    cidr: str = "10.66.0.0/16"
    gateway: str = "10.66.0.1"
    gateway_mac: str = "02:00:5e:00:53:01"
    vxlan_id: int = 77
    vxlan_port: int = 4789


class Cluster(Value, frozen=True, kw_only=True):
    """Content of cluster/config.

    `arming` counts how often it was armed and disarmed; `disarmed_until`: Unix seconds, None: it is armed. `moves_stopped`: why no
    VE is moved from a silent host until an operator says so; empty: they are. `moves_resumed`: hosts that were silent when an operator
    had the moves go on, until they are heard again: no storm is made of them. `confirmed_incarnation`: the last one that an
    operator has confirmed; while that is another one, the store was restored and nothing is changed.
    """

    name: str
    incarnation: int = 1
    timing: Timing = Timing()
    network: Network = Network()
    arming: int = 0
    disarmed_until: float | None = None
    moves_stopped: str = ""
    moves_resumed: tuple[HostName, ...] = ()
    confirmed_incarnation: int = 1
    op_id: str = ""
