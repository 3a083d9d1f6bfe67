"""What Prometheus gets of a host: the use of its VEs, from cgroups, btrfs and the kernel's link counters.

A page is read at scrape time and passes nobody else: usage never goes through the controller. What can't be read of a VE
that just ended is left out of the page. States of VEs that are elsewhere or nowhere are the controller's to tell.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

from prometheus_client import (
    CollectorRegistry,
    generate_latest,
)

from veagent.cgroup import Usage
from veagent.fence import metrics as fence_metrics
from veagent.fence.desk import FenceNumbers
from veagent.net.counters import LinkCounters
from veagent.net.layout import device_name
from veagent.ports import DiskUsage
from veapi.errors import VerackError
from veapi.model import Uid, VEReport, VEState
from veapi.programmetrics import program_registry
from veapi.series import Family, Kind, Labels, Page, labels

CARD = "eth0"
"""Name of a VE's card inside of it."""
_VE = ("ve", "project", "host")


def _counter(name: str, text: str, *more: str) -> Family:
    return Family(f"verack_ve_{name}", Kind.COUNTER, text, (*_VE, *more))


def _gauge(name: str, text: str) -> Family:
    return Family(f"verack_ve_{name}", Kind.GAUGE, text, _VE)


AGENT_INFO = Family(
    "verack_agent_info", Kind.INFO, "The host's agent; always 1.", ("host", "rack", "version")
)
POOL_SIZE = Family(
    "verack_pool_size_bytes", Kind.GAUGE, "Size of the host's pool of roots and images.", ("host",)
)
POOL_AVAIL = Family(
    "verack_pool_avail_bytes", Kind.GAUGE, "What can still be written to the pool.", ("host",)
)
STATE = Family(
    "verack_ve_state",
    Kind.STATE_SET,
    "State of a VE as its host sees it: 1 for the one that holds.",
    (*_VE, "state"),
)
RESTARTS = _counter("restarts_total", "Starts after the VE ended by itself.")
START_TIME = _gauge("start_time_seconds", "When init was started, in Unix seconds.")
CPU = _counter("cpu_seconds_total", "CPU time used since the VE's start, in seconds.", "mode")
FILESYSTEM_SIZE = _gauge(
    "filesystem_size_bytes", "Limit of what the VE's root and snapshots may hold."
)
FILESYSTEM_USED = _gauge("filesystem_used_bytes", "What they hold; the image does not count.")
FILESYSTEM_AVAIL = _gauge("filesystem_avail_bytes", "What the VE's limit leaves.")

_USAGE: tuple[tuple[Family, Callable[[Usage], float]], ...] = (
    (_counter("cpu_periods_total", "Periods of the CPU limit."), lambda u: u.cpu_periods),
    (
        _counter("cpu_throttled_periods_total", "Periods in which the CPU limit was hit."),
        lambda u: u.cpu_throttled_periods,
    ),
    (
        _counter("cpu_throttled_seconds_total", "Time in which the limit withheld the CPU."),
        lambda u: u.cpu_throttled_seconds,
    ),
    (
        _gauge("memory_current_bytes", "Memory charged to the VE, page cache too."),
        lambda u: u.memory_current_bytes,
    ),
    (_gauge("memory_limit_bytes", "Limit of it; -1: none."), lambda u: u.memory_limit_bytes),
    (_gauge("memory_swap_bytes", "Swap in use."), lambda u: u.memory_swap_bytes),
    (
        _gauge("memory_working_set_bytes", "Memory less page cache that is not in active use."),
        lambda u: u.memory_working_set_bytes,
    ),
    (_gauge("memory_anon_bytes", "Memory of processes."), lambda u: u.memory_anon_bytes),
    (_gauge("memory_file_bytes", "Page cache."), lambda u: u.memory_file_bytes),
    (_counter("memory_oom_kills_total", "Kills for want of memory."), lambda u: u.oom_kills),
    (_gauge("pids", "Processes and threads."), lambda u: u.pids_current),
    (_gauge("pids_limit", "Limit of them; -1: none."), lambda u: u.pids_limit),
    (_counter("pids_refused_total", "Forks that the limit refused."), lambda u: u.pids_refused),
    (_counter("disk_read_bytes_total", "Bytes read from disks."), lambda u: u.io_read_bytes),
    (_counter("disk_written_bytes_total", "Bytes written to disks."), lambda u: u.io_write_bytes),
    (_counter("disk_reads_completed_total", "Reads from disks."), lambda u: u.io_reads),
    (_counter("disk_writes_completed_total", "Writes to disks."), lambda u: u.io_writes),
)
_DISK: tuple[tuple[Family, Callable[[DiskUsage], float]], ...] = (
    (FILESYSTEM_SIZE, lambda d: d.limit_bytes),
    (FILESYSTEM_USED, lambda d: d.used_bytes),
    (FILESYSTEM_AVAIL, lambda d: max(0, d.limit_bytes - d.used_bytes)),
)
_NETWORK: tuple[tuple[Family, Callable[[LinkCounters], float]], ...] = (
    (
        _counter("network_receive_bytes_total", "Bytes that the VE received.", "device"),
        lambda c: c.receive.bytes,
    ),
    (
        _counter("network_receive_packets_total", "Packets received.", "device"),
        lambda c: c.receive.packets,
    ),
    (
        _counter("network_receive_errs_total", "Errors while receiving.", "device"),
        lambda c: c.receive.errors,
    ),
    (
        _counter("network_receive_drop_total", "Packets lost on their way in.", "device"),
        lambda c: c.receive.drops,
    ),
    (
        _counter("network_transmit_bytes_total", "Bytes that the VE sent.", "device"),
        lambda c: c.transmit.bytes,
    ),
    (
        _counter("network_transmit_packets_total", "Packets sent.", "device"),
        lambda c: c.transmit.packets,
    ),
    (
        _counter("network_transmit_errs_total", "Errors while sending.", "device"),
        lambda c: c.transmit.errors,
    ),
    (
        _counter("network_transmit_drop_total", "Packets lost on their way out.", "device"),
        lambda c: c.transmit.drops,
    ),
)
FAMILIES: tuple[Family, ...] = (
    AGENT_INFO,
    POOL_SIZE,
    POOL_AVAIL,
    *fence_metrics.FENCE_FAMILIES,
    STATE,
    RESTARTS,
    START_TIME,
    CPU,
    *(family for family, _ in _USAGE),
    *(family for family, _ in _DISK),
    *(family for family, _ in _NETWORK),
)
_STATES = tuple(state.value for state in VEState if state not in (VEState.PENDING, VEState.UNKNOWN))


@dataclass(frozen=True, slots=True)
class Readings:
    """Where the numbers come from. All are called at each scrape, `usage` once for each VE that runs.

    `usage` may raise VerackError or OSError: that VE has ended meanwhile. `pool`: where the pool is mounted, None
    without one.
    """

    reports: Callable[[], Sequence[VEReport]]
    usage: Callable[[Uid], Usage]
    disks: Callable[[], Mapping[Uid, DiskUsage]]
    links: Callable[[], Mapping[str, LinkCounters]]
    pool: Path | None = None
    fence: Callable[[], FenceNumbers | None] = lambda: None


@dataclass(frozen=True, slots=True)
class _Seen:
    """A VE with its labels, and what could be read of it."""

    labels: Labels
    report: VEReport
    usage: Usage | None
    disk: DiskUsage | None
    link: LinkCounters | None


class AgentMetrics:
    """Renders the page. `registry` holds what the program itself counts (process, gRPC)."""

    def __init__(
        self,
        *,
        host: str,
        rack: str,
        version: str,
        readings: Readings,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._host = host
        self._info = labels(host=host, rack=rack, version=version)
        self._readings = readings
        self._registry = registry or program_registry()
        self._labels: dict[Uid, tuple[str, str, Labels]] = {}

    def render(self) -> bytes:
        """The page of now, in Prometheus' text format."""
        page = Page()
        page.family(AGENT_INFO, [(self._info, 1)])
        self._pool(page)
        self._ves(page, self._see())
        return page.encode() + generate_latest(self._registry)

    def _pool(self, page: Page) -> None:
        where = self._readings.pool
        try:
            found = disk_usage(where) if where is not None else None
        except OSError:
            found = None
        host = labels(host=self._host)
        page.family(POOL_SIZE, [(host, found.total)] if found else [])
        page.family(POOL_AVAIL, [(host, found.free)] if found else [])
        fence_metrics.write(page, host, self._readings.fence())

    def _see(self) -> list[_Seen]:
        reports = self._readings.reports()
        disks, links = self._readings.disks(), self._readings.links()
        seen = [
            _Seen(
                labels=self._labels_of(report),
                report=report,
                usage=self._usage(report),
                disk=disks.get(report.uid),
                link=links.get(_device(report.uid)),
            )
            for report in reports
        ]
        self._labels = {each.uid: self._labels[each.uid] for each in reports}
        return seen

    def _labels_of(self, report: VEReport) -> Labels:
        """Rendered once for a VE and name; an orphan has its uid for a name when no better one is known."""
        name, project = report.name or report.uid, report.project
        known = self._labels.get(report.uid)
        if known is None or known[:2] != (name, project):
            rendered = labels(ve=name, project=project, host=self._host)
            known = self._labels[report.uid] = (name, project, rendered)
        return known[2]

    def _usage(self, report: VEReport) -> Usage | None:
        if report.status.started_at is None:
            return None
        try:
            return self._readings.usage(report.uid)
        except (VerackError, OSError):
            return None

    def _ves(self, page: Page, seen: list[_Seen]) -> None:
        page.state_set(STATE, _STATES, ((s.labels, s.report.status.state.value) for s in seen))
        page.family(RESTARTS, ((s.labels, s.report.status.restarts) for s in seen))
        page.family(START_TIME, _start_times(seen))
        page.family(CPU, _cpu(seen))
        for family, used in _USAGE:
            page.family(family, [(s.labels, used(s.usage)) for s in seen if s.usage])
        for family, written in _DISK:
            page.family(family, [(s.labels, written(s.disk)) for s in seen if s.disk])
        device = labels(device=CARD)
        for family, counted in _NETWORK:
            page.family(family, [(f"{s.labels},{device}", counted(s.link)) for s in seen if s.link])


def _device(uid: Uid) -> str:
    try:
        return device_name(uid)
    except VerackError:
        return ""


def _start_times(seen: Iterable[_Seen]) -> Iterator[tuple[Labels, float]]:
    for each in seen:
        if each.report.status.started_at is not None:
            yield each.labels, each.report.status.started_at


def _cpu(seen: Iterable[_Seen]) -> Iterator[tuple[Labels, float]]:
    for each in seen:
        if each.usage:
            yield f'{each.labels},mode="user"', each.usage.cpu_user_seconds
            yield f'{each.labels},mode="system"', each.usage.cpu_system_seconds
