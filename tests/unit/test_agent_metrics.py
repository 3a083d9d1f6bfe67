"""An agent's page, parsed back."""

from dataclasses import fields
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from veagent.cgroup import Usage
from veagent.fence.desk import FenceNumbers
from veagent.metrics import FAMILIES, AgentMetrics, Readings
from veagent.net.counters import Direction, LinkCounters
from veagent.ports import DiskUsage
from veapi.errors import NotFound
from veapi.model import Uid, VEReport, VEState, VEStatus
from vefence.notes import Beat

RUNS = Uid("0123abcd-4567-89ab-cdef-000000000001")
STOPPED = Uid("1123abcd-4567-89ab-cdef-000000000002")
USAGE = Usage(**{field.name: number for number, field in enumerate(fields(Usage), 1)})
LINK = LinkCounters(receive=Direction(1, 2, 3, 4), transmit=Direction(5, 6, 7, 8))


def report(uid: Uid, name: str, state: VEState, started_at: float | None) -> VEReport:
    status = VEStatus(state=state, started_at=started_at, restarts=2)
    return VEReport(uid=uid, name=name, project="default", status=status)


def gone(_: Uid) -> Usage:
    raise NotFound("it ended just now")


def metrics(reports: list[VEReport], **readings: object) -> AgentMetrics:
    found = {
        "reports": lambda: reports,
        "usage": lambda _: USAGE,
        "disks": lambda: {RUNS: DiskUsage(used_bytes=30, limit_bytes=100)},
        "links": lambda: {"v0123abcd4567": LINK, "lo": LINK},
        **readings,
    }
    return AgentMetrics(host="h1", rack="r1", version="1", readings=Readings(**found))  # type: ignore[arg-type]


def samples(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def of(name: str, **more: str) -> tuple[str, frozenset[tuple[str, str]]]:
    labels = {"ve": "web", "project": "default", "host": "h1", **more}
    return name, frozenset(labels.items())


def test_a_running_ve_has_its_usage_under_its_name() -> None:
    found = samples(metrics([report(RUNS, "web", VEState.RUNNING, 1700.5)]).render())
    assert found[of("verack_ve_cpu_seconds_total", mode="user")] == USAGE.cpu_user_seconds
    assert found[of("verack_ve_cpu_seconds_total", mode="system")] == USAGE.cpu_system_seconds
    assert found[of("verack_ve_memory_limit_bytes")] == USAGE.memory_limit_bytes
    assert found[of("verack_ve_pids")] == USAGE.pids_current
    assert found[of("verack_ve_disk_written_bytes_total")] == USAGE.io_write_bytes
    assert found[of("verack_ve_filesystem_avail_bytes")] == 70
    assert found[of("verack_ve_network_receive_bytes_total", device="eth0")] == 1
    assert found[of("verack_ve_network_transmit_drop_total", device="eth0")] == 8
    assert found[of("verack_ve_start_time_seconds")] == 1700.5
    assert found[of("verack_ve_restarts_total")] == 2
    assert found[of("verack_ve_state", state="Running")] == 1
    assert found[of("verack_ve_state", state="Stopped")] == 0


def test_a_stopped_ve_has_a_state_and_no_usage() -> None:
    page = metrics([report(STOPPED, "web", VEState.STOPPED, None)], usage=gone).render()
    found = samples(page)
    assert found[of("verack_ve_state", state="Stopped")] == 1
    assert of("verack_ve_pids") not in found
    assert of("verack_ve_start_time_seconds") not in found


def test_a_ve_that_ends_during_the_scrape_does_not_break_the_page() -> None:
    found = samples(metrics([report(RUNS, "web", VEState.RUNNING, 1.0)], usage=gone).render())
    assert of("verack_ve_pids") not in found
    assert found[of("verack_ve_state", state="Running")] == 1


def test_a_renamed_ve_is_exported_under_its_new_name_alone() -> None:
    reports = [report(RUNS, "web", VEState.RUNNING, 1.0)]
    page = metrics(reports)
    page.render()
    reports[0] = report(RUNS, "other", VEState.RUNNING, 1.0)
    assert of("verack_ve_pids", ve="other") in samples(page.render())
    assert of("verack_ve_pids") not in samples(page.render())


def test_every_family_of_the_list_is_on_the_page(tmp_path: Path) -> None:
    fence = FenceNumbers(live=True, left_s=7.5, listed=2, beat=Beat("boot", 1, 2.0, kills=3))
    reports = [report(RUNS, "web", VEState.RUNNING, 1.0)]
    page = metrics(reports, pool=tmp_path, fence=lambda: fence).render()
    names = {name for name, _ in samples(page)}
    assert {family.name for family in FAMILIES} <= names
    labelled = {name: {key for key, _ in labels} for name, labels in samples(page)}
    assert all(labelled[family.name] == set(family.labels) for family in FAMILIES)


def test_the_fence_is_told_without_a_deadline_while_it_is_off() -> None:
    fence = FenceNumbers(live=False, left_s=float("inf"), listed=0, beat=None)
    found = samples(metrics([], fence=lambda: fence).render())
    host = frozenset({("host", "h1")})
    assert found["verack_agent_fence_live", host] == 0
    assert ("verack_agent_fence_deadline_seconds", host) not in found


def test_the_program_tells_of_itself_too() -> None:
    assert b"process_cpu_seconds_total" in metrics([]).render()
