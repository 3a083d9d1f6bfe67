"""agent.toml: what it may say, and that it says something that works. Unknown fields are errors that name the field."""

from pathlib import Path
from typing import Literal

import msgspec

from veapi import validate
from veapi.channel import Identity
from veapi.errors import InvalidInput
from veapi.units import parse_cpu, parse_duration, parse_size

RuntimeName = Literal["lxc", "fake"]
IDS_COUNT_DEFAULT = 4096
_POOL_DEFAULT_SIZE = "10G"
_STARTS_LIMIT = 64
_CONSOLE_LIMITS = (64 << 10, 1 << 30)
_PIDS_LIMIT = 4_194_304


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of the file."""


class TlsSection(Section, frozen=True, kw_only=True):
    """PEM files of the cluster's CA and of this host, from `vecontroller cert host`."""

    ca: Path
    cert: Path
    key: Path

    @property
    def identity(self) -> Identity:
        return Identity(ca=self.ca, cert=self.cert, key=self.key)


class PoolSection(Section, frozen=True, kw_only=True):
    """Where roots and images are: a loop file (made when missing), a block device, or a folder on a btrfs.

    With less than `least_free` or `least_metadata` it takes no new VEs and no snapshots; None: by its size.
    """

    kind: Literal["loop", "device", "existing"]
    path: Path
    size: str | int = _POOL_DEFAULT_SIZE
    mount: Path | None = None
    least_free: str | int | None = None
    least_metadata: str | int | None = None

    @property
    def size_bytes(self) -> int:
        return parse_size(self.size, field="pool.size")

    @property
    def least_free_bytes(self) -> int | None:
        found = self.least_free
        return None if found is None else parse_size(found, field="pool.least_free")

    @property
    def least_metadata_bytes(self) -> int | None:
        found = self.least_metadata
        return None if found is None else parse_size(found, field="pool.least_metadata")


class CgroupSection(Section, frozen=True, kw_only=True):
    """Everything of this host is below `root` in every hierarchy; two agents on one machine need two."""

    root: str = ""


class LxcfsSection(Section, frozen=True, kw_only=True):
    path: Path


class ConsoleSection(Section, frozen=True, kw_only=True):
    """Of each VE's console at most twice `limit` is kept: when a file is full, it replaces the one before."""

    limit: str | int = "1M"

    @property
    def limit_bytes(self) -> int:
        return parse_size(self.limit, field="console.limit")


class MetricsSection(Section, frozen=True, kw_only=True):
    listen: str


class PeerSection(Section, frozen=True, kw_only=True):
    listen: str


class CapacitySection(Section, frozen=True, kw_only=True):
    """What VEs may have of this host; what is left out is taken from the machine."""

    cpu: float | str | None = None
    memory: str | int | None = None
    pids: int | None = None

    @property
    def cpu_millis(self) -> int | None:
        return None if self.cpu is None else parse_cpu(self.cpu, field="capacity.cpu")

    @property
    def memory_bytes(self) -> int | None:
        return None if self.memory is None else parse_size(self.memory, field="capacity.memory")


class CpuSection(Section, frozen=True, kw_only=True):
    """`pin`: each VE gets as many processors as its quota fills, so that it sees no more than it can use."""

    pin: bool = True


class FenceSection(Section, frozen=True, kw_only=True):
    """Of vefence, which reads it too. `folder`: where it and the agent meet, in memory; None: /run/verack/HOST/fence.

    `watchdog`: a device that reboots the host unless vefence pets it; None: none. `reboot`: of a host on which a VE does not
    die in time.
    """

    folder: Path | None = None
    watchdog: Path | None = None
    reboot: bool = False


class IdsSection(Section, frozen=True, kw_only=True):
    """`count` ranges of 65,536 host ids from `base` on: the first to unpack images, then one for each VE."""

    base: int = 1_000_000
    count: int = IDS_COUNT_DEFAULT


class ImagesSection(Section, frozen=True, kw_only=True):
    """`keep`: how long an image that this host need not hold stays after its last use; a short pool takes it at once."""

    keep: str = "24h"

    @property
    def keep_s(self) -> float:
        return parse_duration(self.keep, field="images.keep")


class LogSection(Section, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    json: bool = False


class Config(Section, frozen=True, kw_only=True):
    """One host. `address`: of the host on the network between the hosts. `controllers`: host:port or unix:/path.

    `max_starts`: how many VEs may be on their way up at once; 0: two for each core.
    """

    host: str
    cluster: str
    controllers: tuple[str, ...]
    address: str
    state: Path
    tls: TlsSection
    runtime: RuntimeName = "lxc"
    max_starts: int = 0
    labels: dict[str, str] = {}
    pool: PoolSection | None = None
    cgroup: CgroupSection = CgroupSection()
    lxcfs: LxcfsSection | None = None
    console: ConsoleSection = ConsoleSection()
    metrics: MetricsSection | None = None
    peer: PeerSection | None = None
    capacity: CapacitySection = CapacitySection()
    cpu: CpuSection = CpuSection()
    ids: IdsSection = IdsSection()
    images: ImagesSection = ImagesSection()
    fence: FenceSection = FenceSection()
    log: LogSection = LogSection()

    @property
    def cgroup_root(self) -> str:
        return self.cgroup.root or f"verack/{self.host}"

    @property
    def fence_folder(self) -> Path:
        return self.fence.folder or Path("/run/verack") / self.host / "fence"

    @property
    def peer_listen(self) -> str:
        return self.peer.listen if self.peer else f"{self.address}:7444"


def load(path: Path, *, runtime: RuntimeName | None = None) -> Config:
    """Reads and checks the file. `runtime` overrides the file's. InvalidInput names file and field."""
    try:
        config = msgspec.toml.decode(path.read_bytes(), type=Config, dec_hook=_path)
        if runtime:
            config = msgspec.structs.replace(config, runtime=runtime)
    except OSError as error:
        raise InvalidInput(
            f"can't read {path}: {error.strerror}",
            hint="name the configuration by --config; deploy/config/agent.toml is an example",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path}: {error}", hint="see docs/reference/configuration.md for all fields"
        ) from None
    try:
        _check(config)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.message}", hint=error.hint) from None
    return config


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError("is not a path")


def _check(config: Config) -> None:
    validate.name("host", config.host)
    validate.name("cluster", config.cluster)
    validate.ipv4("address", config.address)
    validate.labels("labels", config.labels)
    if not config.controllers:
        raise InvalidInput("controllers: is empty", hint='e.g. controllers = ["10.88.0.1:7443"]')
    for target in config.controllers:
        _check_target(target)
    if config.metrics:
        _check_address("metrics.listen", config.metrics.listen)
    _check_address("peer.listen", config.peer_listen)
    _check_number("console.limit", config.console.limit_bytes, *_CONSOLE_LIMITS)
    _check_number("max_starts", config.max_starts, 0, _STARTS_LIMIT)
    _ = config.images.keep_s
    _check_paths(config)
    _check_capacity(config.capacity)
    if config.runtime == "lxc" and config.pool is None:
        raise InvalidInput("pool: is missing", hint="VEs need a btrfs: see [pool] in the example")


def _check_capacity(capacity: CapacitySection) -> None:
    for field, value in (
        ("capacity.cpu", capacity.cpu_millis),
        ("capacity.memory", capacity.memory_bytes),
    ):
        if value is not None and value < 1:
            raise InvalidInput(f"{field}: is not positive", hint="leave it out for the machine's")
    if capacity.pids is not None:
        _check_number("capacity.pids", capacity.pids, 1, _PIDS_LIMIT)


def _check_paths(config: Config) -> None:
    found: list[tuple[str, Path | None]] = [
        ("state", config.state),
        ("tls.ca", config.tls.ca),
        ("tls.cert", config.tls.cert),
        ("tls.key", config.tls.key),
        ("pool.path", config.pool.path if config.pool else None),
        ("pool.mount", config.pool.mount if config.pool else None),
        ("lxcfs.path", config.lxcfs.path if config.lxcfs else None),
        ("fence.folder", config.fence.folder),
        ("fence.watchdog", config.fence.watchdog),
    ]
    for field, path in found:
        if path is not None and not path.is_absolute():
            raise InvalidInput(f"{field}: {str(path)!r} is relative", hint="write the whole path")
    if config.pool:
        pool = config.pool
        _ = (pool.size_bytes, pool.least_free_bytes, pool.least_metadata_bytes)


def _check_number(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidInput(
            f"{field}: {value} is not within {least} and {most}",
            hint="leave it out for the default",
        )


def _check_target(target: str) -> None:
    if not target.startswith("unix:"):
        _check_address("controllers", target)
    elif not target.removeprefix("unix:").startswith("/"):
        raise InvalidInput(
            f"controllers: {target!r} is not an absolute path",
            hint="e.g. unix:/run/verack/controller.sock",
        )


def _check_address(field: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"{field}: {address!r} is not host:port", hint="e.g. 10.88.0.1:7443")
