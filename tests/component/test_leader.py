"""Exactly one controller leads, and a deposed one can neither write nor keep a host alive."""

import asyncio

import pytest
import structlog

from kit.candidate import two_candidates
from kit.modelstore import Fail
from vecontroller.leader import NotLeader
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put


@pytest.fixture
async def pair():
    async with two_candidates() as found:
        yield found


async def test_a_free_key_is_taken_at_once(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0)
    assert one.leads
    assert one.term.incarnation == 1
    item = await one.store.get(keys.LEADER)
    assert item.mod_revision == one.term.epoch
    assert values.decode_leader(item.value).address == "c1:7443"


async def test_of_two_candidates_one_leads_and_the_other_waits(pair) -> None:
    one, two, clock = pair
    one.stand()
    two.stand()
    await clock.advance(30)
    assert [one.leads, two.leads].count(True) == 1
    assert (one.term or two.term).stalls == 0


async def test_a_standby_takes_over_three_seconds_after_the_last_beat(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    await clock.advance(1)
    one.die()
    await clock.advance(2)
    assert two.term is None
    await clock.advance(2.1)
    assert two.leads
    assert two.won.epoch > one.won.epoch


async def test_a_takeover_of_unknown_outcome_is_decided_by_the_run_id(pair) -> None:
    one, two, clock = pair
    one.store.fail_writes(Fail.APPLIED)
    one.stand()
    await clock.advance(1)
    assert one.leads
    one.die()
    two.store.fail_writes(Fail.LOST)
    two.stand()
    await clock.advance(3.6)
    assert two.term is None
    await clock.advance(4)
    assert two.leads


async def test_a_leader_that_beats_at_the_last_moment_keeps_its_term(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    one.die()
    two.stand()
    await clock.advance(2.8)
    await one.term.beat()
    await clock.advance(2)
    assert two.term is None
    assert one.leads


async def test_a_beat_between_the_last_look_and_the_takeover_stops_it(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    one.die()
    transact, tries = two.store.transact, []

    async def after_a_beat(guards, writes):
        tries.append(guards)
        await one.term.beat()
        return await transact(guards, writes)

    two.store.transact = after_a_beat
    two.stand()
    await clock.advance(3.6)
    assert len(tries) == 1
    assert two.term is None
    assert one.leads


async def test_after_an_outage_the_leader_has_its_time_to_beat_again(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    await clock.advance(0.2)
    one.store.away = two.store.away = True
    await clock.advance(60)
    two.store.away = False
    await clock.advance(1.8)
    one.store.away = False
    await clock.advance(10)
    assert one.leads
    assert two.term is None


async def test_a_leader_that_is_lost_with_the_store_is_replaced_two_seconds_after_it(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    await clock.advance(0.2)
    one.die()
    two.store.away = True
    await clock.advance(2)
    two.store.away = False
    await clock.advance(1.8)
    assert two.term is None
    await clock.advance(1)
    assert two.leads


async def test_a_short_outage_spares_nobody_the_three_seconds(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    await clock.advance(0.2)
    one.die()
    two.store.away = True
    await clock.advance(0.6)
    two.store.away = False
    await clock.advance(2)
    assert two.term is None
    await clock.advance(1)
    assert two.leads


async def test_a_read_that_took_long_proves_no_silence(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    one.die()
    two.stand()
    await clock.advance(0.2)
    listing = two.store.list

    async def slow(prefix: str):
        two.store.list = listing
        clock.jump(20)
        return await listing(prefix)

    two.store.list = slow
    await clock.advance(2)
    assert two.term is None
    await clock.advance(21 + 2)
    assert two.leads


async def test_silence_while_the_store_is_away_is_not_the_leaders(pair) -> None:
    one, two, clock = pair
    one.stand()
    two.stand()
    await clock.advance(1)
    lead, standby = (one, two) if one.leads else (two, one)
    lead.store.away = standby.store.away = True
    await clock.advance(60)
    lead.store.away = standby.store.away = False
    await clock.advance(10)
    assert lead.leads
    assert standby.term is None


async def test_who_resigns_frees_the_key_for_the_next(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    await one.term.resign()
    await clock.advance(0.6)
    assert two.leads
    assert one.term.deposed


async def test_a_clean_stop_is_no_warning_and_frees_who_waits(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(1)
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot() + 60))
    await clock.advance(0)
    with structlog.testing.capture_logs() as logs:
        await one.term.resign()
        await one.term.resign()
    with pytest.raises(NotLeader):
        await waiting
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("leadership given up", "info")
    ]


async def test_the_sole_controller_need_not_wait_for_its_dead_self(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    one.die()
    two.stand(patience_s=0)
    await clock.advance(0)
    assert two.leads


async def test_a_leader_whose_store_went_back_gives_up(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    backup = one.store.etcd.snapshot()
    await clock.advance(5)
    one.store.etcd.restore(backup)
    await clock.advance(0.6)
    assert one.term.deposed


async def test_a_leader_key_that_was_deleted_deposes(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    await two.store.transact([], [Delete(key=keys.LEADER)])
    await clock.advance(1)
    assert one.term.deposed


async def test_a_leader_key_that_cant_be_read_is_respected_and_then_taken(pair) -> None:
    one, _, clock = pair
    await one.store.transact([], [Put(key=keys.LEADER, value=b"?")])
    one.stand()
    await clock.advance(2)
    assert one.term is None
    await clock.advance(2)
    assert one.leads


async def test_the_guard_of_a_term_is_its_epoch(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    assert one.term.guard == Guard(key=keys.LEADER, mod_revision=one.term.epoch)
    one.die()
    two.stand()
    await clock.advance(4)
    write = [Put(key=keys.ROOT + "x", value=b"")]
    assert not (await one.store.transact([one.term.guard], write)).succeeded
    assert (await two.store.transact([two.term.guard], write)).succeeded
