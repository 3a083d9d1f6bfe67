"""What a VE can be asked beside running: to freeze, to get a new root, to be kept; its snapshots, limits and processors."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from kit.agenthost import DIGEST, U1, U2, AgentHost, entry, host_set
from kit.manualclock import ManualClock
from veagent.watch import OOM_PAUSE_S
from veapi.errors import Conflict, RemoteFailed
from veapi.model import (
    Action,
    Digest,
    EventType,
    ImageConfig,
    Resources,
    RootWish,
    SetEntry,
    SnapshotWish,
    Uid,
    VEState,
    VEStatus,
)

BACK_OFF_S = 1.0


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[AgentHost]:
    host = AgentHost(tmp_path)
    await host.boot()
    await host.hold_image()
    host.keeper.refresh()
    yield host
    await host.close()


class Wishes:
    """Each wish is a set that is newer than the one before."""

    def __init__(self, host: AgentHost) -> None:
        self._host = host
        self._revision = 0

    async def are(self, *entries: SetEntry) -> None:
        self._revision += 1
        await self._host.manager.apply(host_set(self._revision, *entries))
        await ManualClock.settle()

    async def settle(self, *entries: SetEntry) -> None:
        """Until all is carried out, or told to be refused."""
        await self.are(*entries)
        for each in entries:
            await self._host.until(partial(self._is_over, each))

    def _is_over(self, wish: SetEntry) -> bool:
        return self._host.status(wish.uid).observed_generation == wish.generation


@pytest.fixture
async def wishes(host: AgentHost) -> Wishes:
    wishes = Wishes(host)
    await wishes.settle(entry())
    return wishes


def snap(tag: str, seq: int, *, deleting: bool = False) -> SnapshotWish:
    return SnapshotWish(tag=tag, seq=seq, created_at=1.0, deleting=deleting)


def taken(host: AgentHost) -> list[tuple[str, int, str]]:
    return [(each.tag, each.seq, each.error) for each in host.status().snapshots]


def reasons(host: AgentHost) -> list[str]:
    return [event.reason for event in host.status().events]


# Frozen.


async def test_a_ve_is_frozen_and_thawed(host: AgentHost, wishes: Wishes) -> None:
    pid = host.status().init_pid
    await wishes.settle(entry(action=Action.FREEZE, generation=2))
    assert host.runtime.frozen(U1)
    assert host.status().state is VEState.FROZEN
    await wishes.settle(entry(generation=3))
    assert not host.runtime.frozen(U1)
    assert (host.status().state, host.status().init_pid) == (VEState.RUNNING, pid)
    assert reasons(host)[-2:] == ["Frozen", "Thawed"]


async def test_a_frozen_ve_is_stopped_and_restarted_frozen(host: AgentHost, wishes: Wishes) -> None:
    await wishes.settle(entry(action=Action.FREEZE, generation=2))
    await wishes.settle(entry(action=Action.FREEZE, generation=3, restart_seq=1))
    assert host.status().state is VEState.FROZEN
    assert host.runtime.count("start") == 2
    await wishes.settle(entry(action=Action.STOP, generation=4))
    assert host.status().state is VEState.STOPPED


async def test_an_adopted_ve_is_found_frozen(host: AgentHost, wishes: Wishes) -> None:
    await wishes.settle(entry(action=Action.FREEZE, generation=2))
    await host.crash()
    await host.boot()
    assert host.status().state is VEState.FROZEN
    await ManualClock.settle()
    assert host.runtime.count("freeze") == 1


# Kept.


async def test_a_deleted_ve_is_kept_and_comes_back_with_its_disk_and_ids(
    host: AgentHost, wishes: Wishes
) -> None:
    host.roots.write(U1, "7 bytes")
    worker = host.manager.worker(U1)
    assert worker is not None
    assert worker.record is not None
    base = worker.record.id_base
    await wishes.settle(entry(action=Action.KEEP, generation=2))
    report = host.report()
    assert report.kept
    assert not report.orphan
    assert not report.gone
    assert report.status.disk_used_bytes == 7
    assert not host.network.attached
    assert not host.runtime.known
    await host.clock.advance(100)
    assert host.runtime.count("start") == 1
    await wishes.settle(entry(generation=3, ip="10.66.9.9"))
    status = host.status()
    assert (status.state, status.addresses) == (VEState.RUNNING, ("10.66.9.9",))
    assert not host.report().kept
    assert status.disk_used_bytes == 0
    assert host.roots.read(U1) == "7 bytes"
    assert worker.record is not None
    assert worker.record.id_base == base


async def test_a_kept_ve_is_purged(host: AgentHost, wishes: Wishes) -> None:
    await wishes.settle(entry(action=Action.KEEP, generation=2, snapshots=(snap("a", 1),)))
    await wishes.are(entry(action=Action.PURGE, generation=2))
    await host.until(lambda: host.report().gone)
    assert not await host.roots.all()


async def test_of_a_ve_that_was_never_made_nothing_is_kept(host: AgentHost, wishes: Wishes) -> None:
    await wishes.are(entry(), entry(U2, action=Action.KEEP))
    assert host.report(U2).gone
    assert not host.report(U2).kept
    assert await host.roots.all() == [U1]


async def test_of_a_ve_whose_disk_could_not_be_made_nothing_is_kept(
    host: AgentHost, wishes: Wishes
) -> None:
    host.roots.fail("create", U2, times=5)
    await wishes.are(entry(), entry(U2))
    await host.until(lambda: host.status(U2).state is VEState.FAILED)
    await wishes.are(entry(), entry(U2, action=Action.KEEP, generation=2))
    await host.until(lambda: host.report(U2).gone)
    assert not host.report(U2).kept


# A new root.


async def test_a_rebuild_gives_a_new_root_and_keeps_snapshots(
    host: AgentHost, wishes: Wishes
) -> None:
    snapshots = (snap("a", 1),)
    await wishes.settle(entry(generation=2, snapshots=snapshots))
    host.roots.write(U1, "used")
    await wishes.settle(entry(generation=3, snapshots=snapshots, root=RootWish(seq=1)))
    assert host.roots.read(U1) == DIGEST
    status = host.status()
    assert (status.state, status.observed_root_seq) == (VEState.RUNNING, 1)
    assert taken(host) == [("a", 1, "")]
    assert host.roots.count("drop") == 1


async def test_a_restore_gives_what_the_snapshot_holds(host: AgentHost, wishes: Wishes) -> None:
    host.roots.write(U1, "before")
    snapshots = (snap("a", 1),)
    await wishes.settle(entry(generation=2, snapshots=snapshots))
    host.roots.write(U1, "after")
    stop = entry(action=Action.STOP, generation=3, snapshots=snapshots)
    await wishes.settle(stop)
    root = RootWish(seq=1, snapshot="a")
    await wishes.settle(msgspec.structs.replace(stop, generation=4, root=root))
    assert host.roots.read(U1) == "before"
    assert (host.status().state, host.status().observed_root_seq) == (VEState.STOPPED, 1)


async def test_a_root_that_has_vanished_is_never_made_anew_by_itself(
    host: AgentHost, wishes: Wishes
) -> None:
    """An empty disk in its place would look as if all were well."""
    await wishes.settle(entry(action=Action.STOP, generation=2))
    await host.crash()
    await host.roots.delete(U1)
    await host.boot()
    await wishes.are(entry(generation=3))
    await host.until(lambda: host.status().state is VEState.FAILED)
    status = host.status()
    assert (status.reason, status.observed_generation) == ("RootLost", 3)
    assert "vectl rebuild" in status.message
    assert not await host.roots.exists(U1)
    await wishes.are(entry(generation=4, root=RootWish(seq=1)))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.roots.read(U1) == DIGEST


@pytest.mark.parametrize("action", [Action.KEEP, Action.PURGE, Action.RELEASE])
async def test_an_end_that_is_asked_of_an_earlier_stay_is_refused_and_told(
    host: AgentHost, wishes: Wishes, action: Action
) -> None:
    """As by a controller whose etcd was set back: what it deleted was taken back since."""
    await wishes.settle(entry(generation=2, placement_generation=2))
    pid = host.status().init_pid
    await wishes.are(entry(action=action))
    await host.until(lambda: host.status().reason == "Stale")
    status = host.status()
    assert (status.state, status.init_pid) == (VEState.RUNNING, pid)
    assert "undelete" in status.message
    report = host.report()
    assert not report.gone
    assert not report.kept
    await wishes.are(entry())
    await host.until(lambda: host.status().reason == "")
    await wishes.are(entry(action=action))
    await host.until(lambda: host.report().gone or host.report().kept)


async def hold_image_that_says(host: AgentHost, blob: bytes, text: str) -> Digest:
    """An image of its own whose config sets WHO."""

    async def pieces() -> AsyncIterator[bytes]:
        yield blob

    image = await host.images.add(pieces())
    config = ImageConfig(env={"WHO": text})
    host.images._held[image.digest] = msgspec.structs.replace(image, config=config)
    host.keeper.refresh()
    return image.digest


def who(host: AgentHost, uid: Uid = U1) -> str:
    """As its init was told."""
    return host.runtime.running[uid].environment["WHO"]


@pytest.fixture
async def rebuilt(host: AgentHost, wishes: Wishes) -> tuple[SetEntry, Digest]:
    """A VE of another image than its snapshot `a`, whose image no host has any more; and the image of the snapshot."""
    old = await hold_image_that_says(host, b"old", "old")
    new = await hold_image_that_says(host, b"new", "new")
    first = entry(generation=2, image_digest=old, root=RootWish(seq=1), snapshots=())
    await wishes.settle(first)
    first = msgspec.structs.replace(first, generation=3, snapshots=(snap("a", 1),))
    await wishes.settle(first)
    again = RootWish(seq=2)
    later = msgspec.structs.replace(first, generation=4, image_digest=new, root=again)
    await wishes.settle(later)
    assert who(host) == "new"
    await host.images.delete(old)
    host.keeper.refresh()
    return later, old


def restored(later: SetEntry, digest: Digest) -> SetEntry:
    root = RootWish(seq=3, snapshot="a")
    return msgspec.structs.replace(later, generation=5, image_digest=digest, root=root)


async def test_a_restore_runs_what_the_image_of_the_snapshot_says(
    host: AgentHost, wishes: Wishes, rebuilt: tuple[SetEntry, Digest]
) -> None:
    later, old = rebuilt
    assert [each.image_digest for each in host.status().snapshots] == [old]
    await wishes.settle(restored(later, old))
    assert (host.roots.read(U1), who(host)) == (old, "old")


async def test_a_restore_runs_so_also_when_the_wish_still_names_the_newer_image(
    host: AgentHost, wishes: Wishes, rebuilt: tuple[SetEntry, Digest]
) -> None:
    later, old = rebuilt
    await wishes.settle(restored(later, later.image_digest))
    assert (host.roots.read(U1), who(host)) == (old, "old")


async def test_a_restore_is_still_known_by_an_agent_that_died_while_it_made_the_root(
    host: AgentHost, wishes: Wishes, rebuilt: tuple[SetEntry, Digest]
) -> None:
    later, old = rebuilt
    host.roots.slow("create", 5.0)
    creates = host.roots.count("create")
    await wishes.are(restored(later, old))
    await host.until(lambda: host.roots.count("create") > creates)
    await host.crash()
    host.roots.slow("create", 0.0)
    await host.boot()
    await wishes.are(restored(later, old))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert (host.roots.read(U1), who(host)) == (old, "old")


@pytest.mark.parametrize("snapshot", ["a", ""])
async def test_a_clone_runs_what_the_image_of_its_source_says(
    host: AgentHost, wishes: Wishes, rebuilt: tuple[SetEntry, Digest], snapshot: str
) -> None:
    later, old = rebuilt
    if not snapshot:
        later = restored(later, old)
        await wishes.settle(later)
    root = RootWish(from_uid=U1, snapshot=snapshot)
    await wishes.settle(later, entry(U2, image_digest=old, root=root))
    assert (host.roots.read(U2), who(host, U2)) == (old, "old")


async def test_a_restore_of_what_is_not_there_is_refused_and_stops_nothing(
    host: AgentHost, wishes: Wishes
) -> None:
    pid = host.status().init_pid
    host.roots.write(U1, "precious")
    await wishes.settle(entry(generation=2, root=RootWish(seq=1, snapshot="lost")))
    status = host.status()
    assert (status.state, status.init_pid) == (VEState.RUNNING, pid)
    assert (status.reason, status.observed_root_seq) == ("SourceMissing", 0)
    assert "'lost'" in status.message
    assert host.roots.read(U1) == "precious"
    host.runtime.kill(U1)
    await host.until(lambda: host.status().restarts == 1)
    await wishes.settle(entry(generation=3, memory_bytes=96 << 20))
    assert host.runtime.running[U1].limits.memory_bytes == 96 << 20


async def test_a_rebuild_waits_for_its_image_and_the_ve_runs_on(
    host: AgentHost, wishes: Wishes
) -> None:
    await host.images.delete(DIGEST)
    host.keeper.refresh()
    host.peers.missing = True
    await wishes.are(entry(generation=2, root=RootWish(seq=1)))
    await host.until(lambda: host.status().reason == "ImageFetching")
    assert host.status().state is VEState.RUNNING
    assert host.roots.count("drop") == 0
    host.peers.missing = False
    await host.clock.advance(BACK_OFF_S)
    await host.until(lambda: host.status().observed_root_seq == 1)
    await host.until(lambda: host.status().state is VEState.RUNNING)


@pytest.mark.parametrize("how", ["crash", "reboot of the host", "restart"])
async def test_a_ve_whose_rebuild_waits_for_its_image_comes_up_again_on_its_old_root(
    host: AgentHost, wishes: Wishes, how: str
) -> None:
    await host.images.delete(DIGEST)
    host.keeper.refresh()
    host.peers.missing = True
    host.roots.write(U1, "old")
    wish = entry(generation=2, root=RootWish(seq=1))
    await wishes.are(wish)
    await host.until(lambda: host.status().reason == "ImageFetching")
    pid = host.status().init_pid
    match how:
        case "crash":
            host.runtime.kill(U1)
        case "restart":
            await wishes.are(msgspec.structs.replace(wish, restart_seq=1))
        case _:
            await host.ledger.sync()
            await host.crash()
            host.runtime.kill(U1)
            host.boot_id = "boot-2"
            await host.boot()
            await wishes.are(wish)
    await host.until(lambda: host.status().init_pid not in (0, pid))
    await host.until(lambda: host.status().reason == "ImageFetching")
    status = host.status()
    assert (status.state, host.roots.read(U1)) == (VEState.RUNNING, "old")
    assert (status.observed_generation, status.observed_root_seq) == (1, 0), "not carried out yet"
    host.peers.missing = False
    await host.clock.advance(BACK_OFF_S)
    await host.until(lambda: host.status().observed_root_seq == 1)
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.roots.read(U1) == DIGEST


async def test_a_clone_is_made_of_the_disk_of_another(host: AgentHost, wishes: Wishes) -> None:
    host.roots.write(U1, "to be cloned")
    clone = entry(U2, root=RootWish(from_uid=U1))
    await wishes.settle(entry(), clone)
    assert host.roots.read(U2) == "to be cloned"
    await wishes.settle(entry(), msgspec.structs.replace(clone, generation=2))
    assert host.roots.count("drop") == 0


async def test_a_stopped_clone_gets_its_disk_at_once(host: AgentHost, wishes: Wishes) -> None:
    host.roots.slow("create", 5.0)
    await wishes.are(entry(), entry(U2, action=Action.STOP, root=RootWish(from_uid=U1)))
    await host.until(lambda: host.status(U2).observed_generation == 1)
    assert host.status(U2).state is VEState.CREATING
    await host.until(lambda: host.roots.count("create") == 2)
    await host.clock.advance(5.0)
    await host.until(lambda: host.status(U2).state is VEState.STOPPED)
    assert await host.roots.exists(U2)


# Snapshots.


async def test_a_snapshot_is_taken_once_and_removed_when_asked(
    host: AgentHost, wishes: Wishes
) -> None:
    one, two = snap("a", 1), snap("b", 2)
    await wishes.settle(entry(generation=2, snapshots=(one,)))
    await wishes.settle(entry(generation=3, snapshots=(one, two)))
    assert taken(host) == [("a", 1, ""), ("b", 2, "")]
    await wishes.settle(entry(generation=4, snapshots=(snap("a", 1, deleting=True), two)))
    assert taken(host) == [("b", 2, "")]
    await wishes.settle(entry(generation=5, snapshots=(one, two)))
    assert taken(host) == [("b", 2, "")]
    await wishes.settle(entry(generation=6))
    assert taken(host) == [("b", 2, "")]
    assert host.roots.count("snapshot") == 2


async def test_a_snapshot_that_fails_is_tried_again_and_given_up(
    host: AgentHost, wishes: Wishes
) -> None:
    host.roots.fail("snapshot", U1, times=9, error=RemoteFailed("no room"))
    await wishes.settle(entry(generation=2, snapshots=(snap("a", 1), snap("b", 2))))
    assert taken(host) == [("a", 1, "no room")]
    assert host.status().state is VEState.RUNNING
    await host.clock.advance(60)
    await host.until(lambda: host.roots.count("snapshot") >= 9)
    await host.clock.advance(60)
    await host.until(lambda: len(taken(host)) == 2)
    assert [error for _, _, error in taken(host)] == ["no room", ""]
    await wishes.settle(entry(generation=3, snapshots=(snap("b", 2),)))
    assert taken(host) == [("b", 2, "")]


async def test_a_snapshot_of_what_has_no_disk_says_so(host: AgentHost, wishes: Wishes) -> None:
    wish = entry(U2, action=Action.STOP)
    await wishes.settle(entry(), wish)
    asked = msgspec.structs.replace(wish, generation=2, snapshots=(snap("a", 1),))
    await wishes.settle(entry(), asked)
    (status,) = host.status(U2).snapshots
    assert "no disk yet" in status.error


async def test_a_lost_record_does_not_lose_the_snapshots(host: AgentHost, wishes: Wishes) -> None:
    await wishes.settle(entry(generation=2, snapshots=(snap("a", 1),)))
    await host.ledger.sync()
    await host.crash()
    (host.folder / "records").unlink()
    await host.boot()
    await host.manager.apply(host_set(9, entry(generation=3, snapshots=(snap("a", 1),))))
    await host.until(lambda: host.status().observed_generation == 3)
    assert taken(host) == [("a", 1, "")]
    assert host.roots.count("snapshot") == 1


# Limits, and what needs a restart.


async def test_rates_are_set_after_each_start_and_adoption(host: AgentHost, wishes: Wishes) -> None:
    wish = entry(generation=2, net_in_bps=8000, net_out_bps=16000)
    await wishes.settle(wish)
    assert host.network.rates[U1] == (8000, 16000)
    host.network.rates.clear()
    host.runtime.kill(U1)
    await host.until(lambda: host.network.rates)
    host.network.rates.clear()
    await host.crash()
    await host.boot()
    await host.until(lambda: host.network.rates)


async def test_a_refused_disk_limit_keeps_no_ve_from_starting(
    host: AgentHost, wishes: Wishes
) -> None:
    host.roots.fail("limit", U1, times=9, error=Conflict("2G are in use"))
    wish = entry(generation=2, disk_bytes=1 << 20, memory_bytes=96 << 20)
    await wishes.settle(wish)
    assert host.status().reason == "LimitsRefused"
    assert host.runtime.running[U1].limits.memory_bytes == 96 << 20
    restart = msgspec.structs.replace(wish, restart_seq=1)
    await wishes.are(restart)
    await host.until(lambda: host.status().observed_restart_seq == 1)
    await host.until(lambda: host.status().reason == "LimitsRefused")
    assert host.status().state is VEState.RUNNING


async def test_a_ve_starts_without_what_its_host_can_not_hold_it_to_and_that_is_told(
    host: AgentHost, wishes: Wishes
) -> None:
    host.runtime.weightless = True
    await wishes.settle(entry(generation=2, io_weight=200, memory_bytes=96 << 20))
    assert (host.status().state, host.status().reason) == (VEState.RUNNING, "LimitsRefused")
    await wishes.are(entry(generation=2, io_weight=200, memory_bytes=96 << 20, restart_seq=1))
    await host.until(lambda: host.status().observed_restart_seq == 1)
    await host.until(lambda: host.status().reason == "LimitsRefused")
    assert host.status().state is VEState.RUNNING
    assert host.runtime.running[U1].limits.io_weight == 0
    host.runtime.weightless = False
    await wishes.settle(entry(generation=3, io_weight=200, memory_bytes=96 << 20, restart_seq=1))
    assert host.status().reason == ""
    assert host.runtime.running[U1].limits.io_weight == 200


async def test_a_refused_disk_limit_of_one_that_its_guest_switched_off_is_told_and_not_tried_on_and_on(
    host: AgentHost, wishes: Wishes
) -> None:
    host.runtime.power_off(U1)
    await host.until(lambda: host.status().reason == "PoweredOff")
    host.roots.fail("limit", U1, times=99, error=Conflict("2G are in use"))
    await wishes.settle(entry(generation=2, disk_bytes=1 << 20))
    await host.until(lambda: host.status().reason == "LimitsRefused")
    assert host.status().state is VEState.STOPPED
    for _ in range(3):
        await ManualClock.settle()
    assert host.roots.count("limit") == 1
    host.roots.calls.clear()
    await wishes.settle(entry(generation=3, run_generation=3, disk_bytes=1 << 20))
    assert host.status().state is VEState.RUNNING


async def test_a_limit_that_is_refused_with_a_restart_is_never_told_as_carried_out(
    host: AgentHost, wishes: Wishes
) -> None:
    told: list[VEStatus] = []
    host.changed = lambda uid: told.append(host.status(uid))
    host.roots.fail("limit", U1, times=99, error=Conflict("2G are in use"))
    await wishes.are(entry(generation=2, restart_seq=1, disk_bytes=1 << 20))
    await host.until(lambda: host.status().reason == "LimitsRefused")
    assert any(status.observed_restart_seq == 1 for status in told)
    done = [status for status in told if status.observed_generation == 2]
    assert {status.reason for status in done} == {"LimitsRefused"}


async def test_until_a_limit_is_smaller_the_old_one_is_told_as_in_force(
    host: AgentHost, wishes: Wishes
) -> None:
    was = entry().spec.request
    assert host.status().in_force == was
    host.roots.fail("limit", U1, times=2, error=Conflict("2G are in use"))
    host.runtime.fail("limit", U1, times=2, error=Conflict("80M are in use"))
    less = entry(generation=2, disk_bytes=1 << 20, memory_bytes=32 << 20, cpu_millis=700)
    await wishes.settle(less)
    assert host.status().in_force == msgspec.structs.replace(was, cpu_millis=700)
    await host.crash()
    await host.boot()
    assert host.status().in_force == msgspec.structs.replace(was, cpu_millis=700)
    await wishes.are(msgspec.structs.replace(less, generation=3))
    await host.clock.advance(BACK_OFF_S)
    await host.until(lambda: host.status().in_force == less.spec.request)
    await wishes.settle(msgspec.structs.replace(less, generation=4, action=Action.STOP))
    assert host.status().in_force == Resources(disk_bytes=1 << 20)


async def test_what_only_a_start_can_change_is_told_and_a_restart_does_it(
    host: AgentHost, wishes: Wishes
) -> None:
    wish = entry(generation=2, ip="10.66.9.9", env={"A": "b"}, name="other")
    await wishes.settle(wish)
    status = host.status()
    assert (status.state, status.reason) == (VEState.RUNNING, "RestartNeeded")
    assert status.message == "restart it to change: ip, env"
    assert status.addresses == ("10.66.1.1",)
    await wishes.are(msgspec.structs.replace(wish, restart_seq=1))
    await host.until(lambda: host.status().observed_restart_seq == 1)
    await host.until(lambda: host.status().reason == "")
    assert host.status().addresses == ("10.66.9.9",)
    assert host.runtime.running[U1].environment == {"A": "b"}
    assert host.runtime.running[U1].hostname == "other"


# Memory.


async def test_kills_for_want_of_memory_are_counted_and_told_together(
    host: AgentHost, wishes: Wishes
) -> None:
    host.runtime.run_out_of_memory(U1)
    await host.until(lambda: host.status().oom_kills == 1)
    host.runtime.run_out_of_memory(U1, kills=3)
    await ManualClock.settle()
    assert host.status().oom_kills == 1
    await host.clock.advance(OOM_PAUSE_S)
    await host.until(lambda: host.status().oom_kills == 4)
    assert reasons(host).count("OOMKilled") == 1
    event = host.status().events[-1]
    assert event.type is EventType.WARNING
    assert event.message.startswith("4 processes")


async def test_kills_are_counted_once_over_starts_and_agents(
    host: AgentHost, wishes: Wishes
) -> None:
    host.runtime.run_out_of_memory(U1, kills=2)
    await host.until(lambda: host.status().oom_kills == 2)
    await host.ledger.sync()
    await host.crash()
    await host.boot()
    await host.manager.apply(host_set(9, entry()))
    await ManualClock.settle()
    assert host.status().oom_kills == 2
    host.runtime.kill(U1)
    await host.until(lambda: host.status().restarts == 1)
    await ManualClock.settle()
    assert host.status().oom_kills == 2
    host.runtime.run_out_of_memory(U1)
    await host.until(lambda: host.status().oom_kills == 3)


# Processors.


async def test_ves_get_processors_of_their_own_and_move_when_others_go(tmp_path: Path) -> None:
    host = AgentHost(tmp_path)
    host.cpus = (0, 1, 2, 3)
    await host.boot()
    await host.hold_image()
    host.keeper.refresh()
    wishes = Wishes(host)
    await wishes.settle(entry(cpu_millis=2000), entry(U2, cpu_millis=1500))
    await host.until(lambda: len(host.runtime.running) == 2)
    assert host.status().cpus == "0-1"
    assert host.status(U2).cpus == "2-3"
    assert host.runtime.running[U2].cpus == (2, 3)
    await wishes.settle(entry(cpu_millis=3000, generation=2), entry(U2, cpu_millis=1500))
    await host.until(lambda: len(host.runtime.running[U1].cpus) == 3)
    held = host.status().cpus
    await host.ledger.sync()
    await host.crash()
    await host.boot()
    assert host.status().cpus == held
    await ManualClock.settle()
    assert host.runtime.running[U1].cpus == (0, 1, 2)
    await host.close()


# Orphans and room.


async def test_an_orphan_tells_what_was_last_asked_of_it(host: AgentHost, wishes: Wishes) -> None:
    last = entry(generation=4, labels={"a": "b"})
    await wishes.settle(last)
    await wishes.are()
    assert host.report().orphan
    assert host.report().entry == last
    await host.ledger.sync()
    await host.crash()
    await host.boot()
    await host.manager.apply(host_set(9))
    assert host.report().entry == last


async def test_a_full_pool_makes_new_ves_wait_and_touches_none_that_runs(
    host: AgentHost, wishes: Wishes
) -> None:
    host.roots.full = "the pool is full"
    watch = asyncio.create_task(host.manager.watch_room())
    await ManualClock.settle()
    assert host.manager.facts().refuses == "the pool is full"
    await wishes.are(entry(), entry(U2))
    status = host.status(U2)
    assert (status.state, status.reason) == (VEState.CREATING, "PoolFull")
    assert status.message == "the pool is full"
    assert host.status().state is VEState.RUNNING
    host.roots.full = ""
    await host.clock.advance(5)
    await host.until(lambda: host.status(U2).state is VEState.RUNNING)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
