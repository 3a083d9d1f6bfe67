"""Vefence's loop on a made-up kernel: what it makes of its notes, and of what does not die."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from veagent.fence.door import FileDoor
from vefence import groups, notes
from vefence.host import Watchdog, boot_id
from vefence.loop import Fence, Kernel, Settings
from vefence.notes import Beat, KillList, Lease, Target

BOOT = boot_id()
LEASE = Lease(BOOT, 7, 100.0, 2.0)
LIST = KillList(BOOT, 8, "verack/h1", (Target("a", "va", 1), Target("b", "", 2)))


class Groups(groups.Groups):
    def __init__(self, alive: set[str]) -> None:
        self.killed = 0
        self.fails_once = False
        self.living = alive
        self.immortal = False

    def alive(self, root: str, uid: str) -> bool:
        assert root == "verack/h1"
        if self.fails_once:
            self.fails_once = False
            raise ZeroDivisionError
        return uid in self.living

    def kill(self, root: str, uid: str) -> None:
        self.killed += 1
        if not self.immortal:
            self.living.discard(uid)


class Machine:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.now = 99.0
        self.cut: list[str] = []
        self.reboots = 0
        self.folder = folder
        self.groups = Groups({"a", "b", "c"})
        self.settings = Settings(folder, **settings)
        self.fence = self.begin()

    def begin(self) -> Fence:
        kernel = Kernel(self.groups, self._cut, self._reboot, lambda: self.now)
        self.fence = Fence(self.settings, kernel)
        return self.fence

    def _cut(self, device: str) -> bool:
        self.cut.append(device)
        return True

    def _reboot(self) -> None:
        self.reboots += 1

    def tell(self, *some: notes.Note) -> None:
        for note in some:
            name = notes.LEASE if isinstance(note, Lease) else notes.LIST
            notes.replace(self.folder / name, note)

    @property
    def beat(self) -> Beat:
        found = notes.read(self.folder / notes.BEAT, Beat)
        assert found is not None
        return found


def test_it_confirms_what_it_goes_by_and_kills_when_that_runs_out(tmp_path: Path):
    machine = Machine(tmp_path)
    machine.tell(LEASE, LIST)
    machine.fence.turn()
    assert (machine.beat.lease_seq, machine.beat.list_seq, machine.beat.expired) == (7, 8, False)
    machine.now = 100.0
    machine.fence.turn()
    assert machine.groups.living == {"c"}
    assert list(machine.beat.alive) == ["a", "b"]
    machine.fence.turn()
    assert (machine.beat.expired, machine.beat.alive) == (True, ())
    machine.groups.living.add("a")  # it rebooted, or an old start came about
    machine.fence.turn()
    assert machine.groups.living == {"c"}
    machine.tell(replace(LEASE, seq=9, deadline=200.0))
    machine.groups.living.add("a")
    machine.fence.turn()
    assert "a" in machine.groups.living
    assert not machine.beat.expired


def test_one_that_begins_anew_goes_by_the_same_notes(tmp_path: Path):
    machine = Machine(tmp_path)
    machine.tell(LEASE, LIST)
    machine.fence.turn()
    machine.now = 101.0
    machine.begin().turn()
    assert machine.groups.living == {"c"}


def test_one_that_begins_anew_without_a_lease_kills_and_without_a_list_says_that_it_has_none(
    tmp_path: Path,
):
    machine = Machine(tmp_path)
    machine.tell(LEASE, LIST)
    (tmp_path / notes.LIST).write_text("rubbish")
    machine.begin().turn()
    assert (machine.beat.lease_seq, machine.beat.list_seq) == (7, 0)
    machine.tell(LIST)
    (tmp_path / notes.LEASE).unlink()
    machine.begin().turn()
    assert machine.groups.living == {"c"}


def test_notes_that_are_spoilt_while_it_runs_change_nothing(tmp_path: Path):
    machine = Machine(tmp_path)
    machine.tell(LEASE, LIST)
    machine.fence.turn()
    for name in (notes.LEASE, notes.LIST):
        (tmp_path / name).write_text("rubbish")
    machine.fence.turn()
    assert (machine.beat.lease_seq, machine.beat.list_seq) == (7, 8)
    machine.now = 100.0
    machine.fence.turn()
    assert machine.groups.living == {"c"}


def test_what_does_not_die_loses_its_card_then_the_host_and_the_watchdog_gets_nothing_more(
    tmp_path: Path,
):
    dog = tmp_path / "dog"
    os.mkfifo(dog)
    reader = os.open(dog, os.O_RDONLY | os.O_NONBLOCK)
    machine = Machine(tmp_path, watchdog=dog, reboot=True)
    machine.groups.immortal = True
    machine.tell(LEASE, LIST)
    for now in (99.0, 100.0, 102.0):
        machine.now = now
        machine.fence.turn()
    assert os.read(reader, 100) == b"..."
    assert (machine.cut, machine.reboots, machine.beat.cut) == (["va"], 0, 1)
    machine.now = 102.5
    machine.fence.turn()
    assert machine.reboots == 1
    with pytest.raises(BlockingIOError):
        os.read(reader, 100)
    os.close(reader)


def test_the_watchdog_is_told_to_stop_only_when_nothing_is_left_to_mind(tmp_path: Path):
    path = tmp_path / "dog"
    path.touch()
    for safe in (False, True):
        dog = Watchdog(path)
        dog.close(safe=True)  # was never opened
        dog.pet()
        dog.close(safe=safe)
    assert path.read_bytes() == b".V"
    Watchdog(None).pet()
    Watchdog(tmp_path / "none").pet()


def test_a_beat_that_can_not_be_written_stops_no_kill(tmp_path: Path):
    machine = Machine(tmp_path)
    machine.tell(LEASE, LIST)
    machine.now = 100.0
    (tmp_path / f"beat.{os.getpid()}").mkdir()
    machine.fence.turn()
    assert machine.groups.living == {"c"}


def test_it_goes_on_after_a_turn_that_failed(tmp_path: Path):
    machine = Machine(tmp_path)
    machine.tell(LEASE, LIST)
    machine.now, stops = 100.0, iter([False, False, True])
    machine.groups.fails_once = True
    machine.fence.run(lambda: next(stops))
    assert not machine.groups.fails_once
    assert machine.groups.living == {"c"}


def test_an_agents_door_tells_it_and_hears_of_it(tmp_path: Path):
    door = FileDoor(tmp_path / "fence", BOOT)
    assert door.told() == (None, None)
    assert door.lacks() == (True, True)
    door.tell_lease(LEASE)
    door.tell_list(LIST)  # nobody is there to be woken
    assert door.told() == (LEASE, LIST)
    assert door.heard() is None
    machine = Machine(tmp_path / "fence")
    told = machine.fence.turn()
    door.tell_list(replace(LIST, seq=12))
    machine.now = 0.0  # it would rest for long
    machine.fence.rest(told)
    machine.fence.turn()
    beat = door.heard()
    assert beat is not None
    assert (beat.lease_seq, beat.list_seq) == (7, 12)
    assert door.lacks() == (False, False)
