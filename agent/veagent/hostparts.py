"""The host's side of the ports, chosen by the configuration: LXC, btrfs and netlink, or the fakes."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from veagent.cgroup import Cgroups, Usage
from veagent.cgroup.disk import disk_below
from veagent.config import Config, PoolSection
from veagent.fence.door import Door
from veagent.net.counters import LinkCounters
from veagent.net.settings import PORTS_OF_VERACK, NetSettings
from veagent.ports import Images, Roots, Runtime, VENetwork
from veapi.clock import Clock
from veapi.errors import InvalidInput, NotFound
from veapi.model import Uid

if TYPE_CHECKING:
    from veagent.hostfiles import VEFiles
    from veagent.storage.pool import PoolSettings


RECHECK_S = 1.0
"""Shorter than any round of the manager's."""


@dataclass(frozen=True, slots=True)
class HostParts:
    """`usage` raises NotFound for a VE that does not run; `links` are the counters of the host's network devices."""

    runtime: Runtime
    roots: Roots
    images: Images
    network: VENetwork
    usage: Callable[[Uid], Usage]
    links: Callable[[], Mapping[str, LinkCounters]]
    pool: Path | None
    files: "VEFiles | None" = None
    fence: Door | None = None
    """Of the fakes, which have a vefence of their own."""


async def open_parts(config: Config, clock: Clock, stack: AsyncExitStack) -> HostParts:
    """Sets everything up; `stack` releases what this process holds (VEs run on)."""
    if config.runtime == "fake":
        return await _open_fakes(config, clock, stack)
    return await _open_real(config, clock, stack)


async def _open_fakes(config: Config, clock: Clock, stack: AsyncExitStack) -> HostParts:
    from veagent.fake.fence import FakeVefence  # noqa: PLC0415
    from veagent.fake.network import FakeNetwork  # noqa: PLC0415 - only when asked for
    from veagent.fake.runtime import FakeRuntime  # noqa: PLC0415
    from veagent.fake.storage import FakeImages, FakeRoots  # noqa: PLC0415

    folder = config.state / "fake"
    images = FakeImages(folder / "images", clock)
    images.load()
    roots = FakeRoots(folder / "roots", images, clock)
    runtime = FakeRuntime(folder / "ves", clock)
    await roots.setup()
    await runtime.setup()
    stack.push_async_callback(runtime.aclose)
    fence = FakeVefence(runtime, clock)
    stack.enter_context(fence.running())
    return HostParts(
        runtime=runtime,
        roots=roots,
        images=images,
        network=FakeNetwork(clock),
        usage=_no_usage,
        links=dict,
        pool=None,
        fence=fence,
    )


def _no_usage(uid: Uid) -> Usage:
    raise NotFound(f"VE {uid} only seems to run")


async def _open_real(config: Config, clock: Clock, stack: AsyncExitStack) -> HostParts:
    from veagent.hostfiles import HostFiles  # noqa: PLC0415
    from veagent.net.network import HostNetwork  # noqa: PLC0415 - heavy, and no laptop has it
    from veagent.runtime import LxcRuntime, LxcSettings  # noqa: PLC0415
    from veagent.storage.images import BtrfsImages  # noqa: PLC0415
    from veagent.storage.pool import BtrfsPool  # noqa: PLC0415
    from veagent.storage.roots import BtrfsRoots  # noqa: PLC0415

    pool = BtrfsPool(_pool_settings(config), clock=clock)
    images, roots = BtrfsImages(pool, id_base=config.ids.base), BtrfsRoots(pool, clock=clock)
    await images.setup()
    await roots.setup()
    settings = LxcSettings(
        state=config.state,
        cgroup_root=config.cgroup_root,
        lxcfs=config.lxcfs.path if config.lxcfs else None,
        console_bytes=config.console.limit_bytes,
    )
    # A pool stays on its device while it is mounted.
    cgroups = Cgroups(config.cgroup_root, disk=cache(partial(disk_below, pool.base)))
    runtime = LxcRuntime(settings, clock, cgroups=cgroups)
    await runtime.setup()
    stack.push_async_callback(runtime.aclose)
    network = HostNetwork(net_settings(config), clock)
    stack.push_async_callback(network.aclose)
    return HostParts(
        runtime=runtime,
        roots=roots,
        images=images,
        network=network,
        usage=runtime.cgroups.usage,
        links=network.counters,
        pool=pool.base,
        files=HostFiles(pool, runtime.cgroups.guest),
    )


def _pool_settings(config: Config) -> "PoolSettings":
    from veagent.storage.fullness import Thresholds  # noqa: PLC0415
    from veagent.storage.pool import PoolSettings  # noqa: PLC0415

    pool: PoolSection | None = config.pool
    if pool is None:
        raise InvalidInput("pool: is missing", hint="VEs need a btrfs: see [pool] in the example")
    return PoolSettings(
        kind=pool.kind,
        path=pool.path,
        size_bytes=pool.size_bytes,
        mount=pool.mount,
        thresholds=Thresholds(pool.least_free_bytes, pool.least_metadata_bytes),
    )


def net_settings(config: Config) -> NetSettings:
    """What the host's network is told; each of the manager's rounds looks at the kernel again."""
    return NetSettings(
        local_address=config.address,
        guarded_ports=_guarded_ports(config),
        guarded_hosts=_controller_hosts(config),
        recheck_s=RECHECK_S,
    )


def _guarded_ports(config: Config) -> tuple[int, ...]:
    """The usual ones, as other hosts have them, and those that this configuration names. 0 is any free port."""
    named = [config.peer_listen, *config.controllers]
    if config.metrics is not None:
        named.append(config.metrics.listen)
    ports = (target.rpartition(":")[2] for target in named if not target.startswith("unix:"))
    return tuple(sorted({*PORTS_OF_VERACK, *(int(port) for port in ports)} - {0}))


def _controller_hosts(config: Config) -> tuple[str, ...]:
    """IPv4 addresses of the controllers: VEs may not talk to their ports."""
    hosts = (target.rpartition(":")[0] for target in config.controllers)
    return tuple(sorted({host for host in hosts if host.replace(".", "").isdecimal()}))
