"""controller.toml: what it may say, and that it says something that works. Unknown fields are errors that name the field."""

import ipaddress
from pathlib import Path
from typing import Literal

import msgspec

from veapi import validate
from veapi.channel import Identity
from veapi.errors import InvalidInput
from veapi.model import Cluster, Network, Timing
from veapi.units import parse_duration
from vecontroller import timing
from vecontroller.placementconfig import PlacementSection

MAX_REPLICAS = 1000
VXLAN_IDS = range(1, 1 << 24)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of the file."""


class TlsSection(Section, frozen=True, kw_only=True):
    """PEM files of the cluster's CA and of this controller, from `vecontroller cert controller`."""

    ca: Path
    cert: Path
    key: Path

    @property
    def identity(self) -> Identity:
        return Identity(ca=self.ca, cert=self.cert, key=self.key)


class EtcdSection(Section, frozen=True, kw_only=True):
    """Either `embedded`, or `endpoints` (host:port) of a cluster with the files that open it."""

    embedded: bool = False
    endpoints: tuple[str, ...] = ()
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def identity(self) -> Identity:
        """Of an external cluster."""
        assert self.ca is not None
        assert self.cert is not None
        assert self.key is not None
        return Identity(ca=self.ca, cert=self.cert, key=self.key)


class NetworkSection(Section, frozen=True, kw_only=True):
    """The VEs' overlay; counts only when the cluster is made. The gateway is the pool's first address by default."""

    cidr: str = "10.66.0.0/16"
    gateway: str = ""
    vxlan_id: int = 77

    @property
    def network(self) -> Network:
        first = str(next(ipaddress.IPv4Network(self.cidr).hosts()))
        return Network(cidr=self.cidr, gateway=self.gateway or first, vxlan_id=self.vxlan_id)


class TimingSection(Section, frozen=True, kw_only=True):
    """When hosts fence themselves and when their VEs are moved, in seconds; counts only when the cluster is made."""

    heartbeat_s: float = 1.0
    fence_after_s: float = 8.0
    kill_within_s: float = 2.0
    move_after_s: float = 12.0

    @property
    def timing(self) -> Timing:
        return Timing(
            heartbeat_s=self.heartbeat_s,
            fence_after_s=self.fence_after_s,
            kill_within_s=self.kill_within_s,
            move_after_s=self.move_after_s,
        )


class DeletedSection(Section, frozen=True, kw_only=True):
    """How long the roots of deleted VEs are kept: a duration, or "0" for not at all."""

    keep: str = "24h"

    @property
    def keep_s(self) -> float:
        """In seconds. InvalidInput when it is no duration."""
        return parse_duration(self.keep, field="deleted.keep")


class ImagesSection(Section, frozen=True, kw_only=True):
    """`replicas`: on how many hosts each image is kept, whether a VE uses it or not."""

    replicas: int = 3


class LogSection(Section, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    json: bool = False


class Config(Section, frozen=True, kw_only=True):
    """One controller. `listen`: host:port or unix:/path; `address`: host:port that others dial; `metrics`: host:port."""

    name: str
    cluster: str
    data: Path
    listen: tuple[str, ...]
    address: str
    tls: TlsSection
    metrics: str = ""
    etcd: EtcdSection = EtcdSection()
    network: NetworkSection = NetworkSection()
    timing: TimingSection = TimingSection()
    deleted: DeletedSection = DeletedSection()
    images: ImagesSection = ImagesSection()
    placement: PlacementSection = PlacementSection()
    log: LogSection = LogSection()

    @property
    def new_cluster(self) -> Cluster:
        """The cluster's record as it is written when there is none."""
        return Cluster(name=self.cluster, network=self.network.network, timing=self.timing.timing)


def load(path: Path, *, embedded_etcd: bool = False) -> Config:
    """Reads and checks the file. `embedded_etcd` overrides its [etcd]. InvalidInput names file and field."""
    try:
        config = msgspec.toml.decode(path.read_bytes(), type=Config, dec_hook=_path)
    except OSError as error:
        raise InvalidInput(
            f"can't read {path}: {error.strerror}",
            hint="name the configuration by --config; deploy/config/controller.toml is an example",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path}: {error}", hint="see docs/reference/configuration.md for all fields"
        ) from None
    if embedded_etcd:
        config = msgspec.structs.replace(config, etcd=EtcdSection(embedded=True))
    try:
        check(config)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.message}", hint=error.hint) from None
    return config


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError("is not a path")


def check(config: Config) -> None:
    """InvalidInput names the first field that can't be as it is."""
    validate.name("name", config.name)
    validate.name("cluster", config.cluster)
    if not config.listen:
        raise InvalidInput("listen: is empty", hint='e.g. listen = ["10.88.0.1:7443"]')
    for address in config.listen:
        _check_listen(address)
    _check_address("address", config.address)
    if config.metrics:
        _check_address("metrics", config.metrics)
    if not 1 <= config.images.replicas <= MAX_REPLICAS:
        raise InvalidInput(
            f"images.replicas: {config.images.replicas} is not within 1 and {MAX_REPLICAS}",
            hint="3 survives the loss of two hosts",
        )
    _check_etcd(config.etcd)
    _check_network(config.network)
    timing.check(config.timing.timing)
    parse_duration(config.deleted.keep, field="deleted.keep")
    _ = config.placement.rules


def _check_listen(address: str) -> None:
    if not address.startswith("unix:"):
        _check_address("listen", address)
    elif not address.removeprefix("unix:").startswith("/"):
        raise InvalidInput(
            f"listen: {address!r} is not an absolute path",
            hint="e.g. unix:/run/verack/controller.sock",
        )


def _check_address(field: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"{field}: {address!r} is not host:port", hint="e.g. 10.88.0.1:7443")


def _check_etcd(etcd: EtcdSection) -> None:
    if etcd.embedded == bool(etcd.endpoints):
        raise InvalidInput(
            "etcd: needs either embedded = true or endpoints",
            hint="embedded for one controller on one machine; endpoints of 3 or 5 members for a rack",
        )
    for endpoint in etcd.endpoints:
        _check_address("etcd.endpoints", endpoint)
    missing = [
        field
        for field, value in (("ca", etcd.ca), ("cert", etcd.cert), ("key", etcd.key))
        if value is None
    ]
    if etcd.endpoints and missing:
        raise InvalidInput(
            f"etcd: {', '.join(missing)} is missing", hint="etcd is spoken to by mTLS only"
        )


def _check_network(network: NetworkSection) -> None:
    try:
        pool = ipaddress.IPv4Network(network.cidr)
    except ValueError as error:
        raise InvalidInput(f"network.cidr: {error}", hint="e.g. 10.66.0.0/16") from None
    if pool.prefixlen > 29:
        raise InvalidInput(f"network.cidr: {network.cidr} is too small", hint="at most /29")
    try:
        inside = not network.gateway or ipaddress.IPv4Address(network.gateway) in pool
    except ValueError:
        inside = False
    if not inside:
        raise InvalidInput(
            f"network.gateway: {network.gateway!r} is not an address of {network.cidr}",
            hint="leave it out for the pool's first address",
        )
    if network.vxlan_id not in VXLAN_IDS:
        raise InvalidInput(
            f"network.vxlan_id: {network.vxlan_id} is not in 1..{VXLAN_IDS[-1]}",
            hint="choose one that nothing else on this network uses",
        )
