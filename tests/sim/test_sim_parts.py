"""The simulated machine behaves as the real one where the product depends on it."""

import asyncio
import os
from pathlib import Path
from random import Random
from typing import cast

import pytest

from sim import loop as loops
from sim.disk import Disk, DiskOs, disks
from sim.loop import Stuck
from sim.network import Network, Paces
from sim.process import Process, SimClock
from veagent.sealed import replace_file


def process(loop, name="p"):
    return Process(loop, name, SimClock(loop), Random(1))


def test_time_passes_only_when_nothing_is_ready():
    with loops.running(None) as loop:
        said = []

        async def sleeper():
            await asyncio.sleep(3600)
            said.append(loop.time())

        loop.run_until_complete(sleeper())
        assert said == [3600]


def test_a_loop_with_nothing_to_come_is_stuck():
    with loops.running(None) as loop, pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())


def test_a_dead_process_does_nothing_any_more_not_even_its_clean_up():
    with loops.running(None) as loop:
        one, said = process(loop), []

        async def work():
            try:
                await asyncio.sleep(10)
            finally:
                said.append("cleaned up")

        one.spawn(work())
        loop.call_later(5, one.die)
        loop.run_until_complete(asyncio.sleep(20))
        assert said == []


def test_a_paused_process_goes_on_later():
    with loops.running(None) as loop:
        one, said = process(loop), []

        async def work():
            await asyncio.sleep(1)
            said.append(loop.time())

        one.spawn(work())
        loop.call_later(0.5, one.pause)
        loop.call_later(5, one.resume)
        loop.run_until_complete(asyncio.sleep(20))
        assert said == [5]


def test_what_was_not_synced_may_be_lost_and_what_was_never_is():
    there = set()
    for seed in range(40):
        disk = Disk()
        root = disk.root()
        with disks():
            replace_file(cast("Path", root / "safe"), b"old")
            (root / "loose").write_bytes(b"new")
            disk.lose_power(Random(seed))
            assert (root / "safe").read_bytes() == b"old"
            there.add((root / "loose").exists())
    assert there == {True, False}


def test_a_replaced_file_is_old_or_new_whenever_the_power_goes():
    found = set()
    for budget in range(12):
        for seed in range(20):
            disk = Disk()
            path = cast("Path", disk.root() / "set")
            with disks():
                replace_file(path, b"old")
                disk.budget = budget
                try:
                    replace_file(path, b"new")
                except BaseException as death:  # noqa: BLE001 - it is one
                    assert type(death).__name__ == "Died"
                disk.budget = None
                disk.lose_power(Random(seed))
                found.add(path.read_bytes())
    assert found == {b"old", b"new"}


def test_other_files_are_the_real_ones(tmp_path):
    system = DiskOs()
    fd = system.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    system.fsync(fd)
    system.close(fd)
    assert (tmp_path / "file").exists()


def talk(loop, *, cut_s=0.0):
    """A connection on which "hello" is sent while the path is cut."""
    network = Network(loop, Random(1), Paces())
    server, client, heard, broke = process(loop, "s"), process(loop, "c"), [], []

    def accept(connection):
        connection.served_by(server)
        connection.ends[1].received = lambda message: heard.append((loop.time(), message))
        connection.ends[1].broke = lambda: broke.append(loop.time())

    network.listeners["s"] = accept
    connection = network.connect(client, "c", "s")
    assert connection is not None
    if cut_s:
        network.cut("c", "s")
        loop.call_later(cut_s, network.heal, "c", "s")
    connection.ends[0].send("hello")
    return network, client, heard, broke


def test_a_short_cut_only_delays():
    with loops.running(None) as loop:
        _, _, heard, broke = talk(loop, cut_s=4)
        loop.run_until_complete(asyncio.sleep(60))
        assert [message for _, message in heard] == ["hello"]
        assert 4 <= heard[0][0] < 5
        assert broke == []


def test_a_long_cut_breaks_the_connection():
    with loops.running(None) as loop:
        _, _, heard, broke = talk(loop, cut_s=40)
        loop.run_until_complete(asyncio.sleep(60))
        assert heard == []
        assert 10 <= broke[0] < 14


def test_a_process_that_dies_resets_its_connections():
    with loops.running(None) as loop:
        _, client, _, broke = talk(loop)
        loop.call_later(1, client.die)
        loop.run_until_complete(asyncio.sleep(60))
        assert 1 <= broke[0] < 2


def test_a_host_that_loses_power_says_nothing():
    with loops.running(None) as loop:
        network, client, _, broke = talk(loop)
        loop.call_later(1, network.power_off, "c")
        loop.call_later(1, client.die)
        loop.run_until_complete(asyncio.sleep(60))
        assert broke[0] > 10
