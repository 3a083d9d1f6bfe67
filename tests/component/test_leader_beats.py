"""A leader's beats: what they confirm, and how a deposed one learns of it."""

import asyncio

import pytest

from kit.candidate import two_candidates
from kit.manualclock import ManualClock
from kit.modelstore import Fail, ModelStore
from vecontroller.leader import NotLeader, acquire


@pytest.fixture
async def pair():
    async with two_candidates() as found:
        yield found


async def test_a_deposed_leader_learns_it_from_its_next_beat(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    one.store.away = True
    await clock.advance(5)
    assert two.leads
    assert one.leads, "nobody could tell it yet"
    one.store.away = False
    await clock.advance(1)
    assert one.term.lost.is_set()
    assert two.leads


async def test_no_heartbeat_is_confirmed_by_a_deposed_leader(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    one.store.away = True
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot()))
    await clock.advance(5)
    assert two.leads
    assert not waiting.done()
    one.store.away = False
    await clock.advance(1)
    with pytest.raises(NotLeader):
        await waiting
    with pytest.raises(NotLeader):
        await one.term.confirmed_after(0)


async def test_a_beat_that_began_before_confirms_nothing(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot()))
    await clock.advance(0.2)
    assert not waiting.done()
    await clock.advance(0.2)
    await waiting


async def test_a_beat_that_was_on_its_way_confirms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock = ModelStore(), ManualClock()
    term = await acquire(store, name="c", address="a", run_id="r", clock=clock)
    held = asyncio.Event()
    transact = store.transact

    async def slow(guards, writes):
        await held.wait()
        return await transact(guards, writes)

    monkeypatch.setattr(store, "transact", slow)
    beating = asyncio.create_task(term.beat())
    await clock.settle()
    clock.jump(0.1)
    arrived = clock.boot()
    waiting = [asyncio.create_task(term.confirmed_after(arrived))]
    await clock.settle()
    clock.jump(0.1)
    held.set()
    await beating
    waiting.append(asyncio.create_task(term.confirmed_after(arrived)))
    await clock.settle()
    assert not any(wait.done() for wait in waiting)
    clock.jump(0.1)
    await term.beat()
    await asyncio.gather(*waiting)


async def test_a_thousand_heartbeats_are_confirmed_by_one_beat(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    before = one.store.writes
    waiting = [asyncio.create_task(one.term.confirmed_after(clock.boot())) for _ in range(1000)]
    await clock.advance(0.5)
    await asyncio.gather(*waiting)
    assert one.store.writes == before + 1
    assert not one.term._waiters


async def test_who_gives_up_waiting_is_forgotten_while_the_store_is_away(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    one.store.away = True
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot()))
    await clock.settle()
    waiting.cancel()
    await clock.settle()
    assert not one.term._waiters


@pytest.mark.parametrize("how", [Fail.APPLIED, Fail.LOST])
async def test_a_beat_of_unknown_outcome_is_read_back(pair, how: Fail) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot()))
    one.store.fail_writes(how)
    await clock.advance(0.4)
    assert waiting.done() is (how is Fail.APPLIED)
    await clock.advance(0.5)
    await waiting
    assert one.leads


async def test_an_earlier_beat_that_lands_late_does_not_pass_for_a_later_one() -> None:
    store, clock = ModelStore(), ManualClock()
    term = await acquire(store, name="c", address="a", run_id="r", clock=clock)
    store.fail_writes(Fail.LATE)
    await term.beat()
    clock.jump(1)
    arrived = clock.boot()
    store.land_late_writes()
    clock.jump(1)
    store.fail_writes(Fail.LOST)
    await term.beat()
    waiting = asyncio.create_task(term.confirmed_after(arrived))
    await clock.settle()
    assert not waiting.done()
    await term.beat()
    await waiting


async def test_a_leader_that_stood_still_counts_it(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(1)
    assert one.term.stalls == 0
    clock.jump(1.6)
    await clock.advance(0.1)
    assert one.term.stalls == 1
    await clock.advance(5)
    assert one.term.stalls == 1
