"""Tickets for images: one use, 60 s, one host, one image."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veagent.peer import GRANTS_LIMIT, TICKET_GOOD_S, WAITERS_LIMIT, Grants
from veapi.errors import Denied, InvalidInput
from veapi.model import Digest

TICKET = b"t" * 16
DIGEST = Digest("sha256:" + "a" * 64)


class FakeClock:
    def __init__(self):
        self.now = 1000.0

    def boot(self):
        return self.now

    def wall(self):
        raise AssertionError("tickets go by the boot clock")

    async def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def grants(clock):
    made = Grants(clock)
    made.add(TICKET, "h2", DIGEST)
    return made


def test_a_ticket_is_good_once(grants):
    grants.use(TICKET, "h2", DIGEST)
    with pytest.raises(Denied):
        grants.use(TICKET, "h2", DIGEST)


def test_a_ticket_is_good_for_sixty_seconds(grants, clock):
    clock.now += TICKET_GOOD_S - 0.001
    grants.use(TICKET, "h2", DIGEST)
    grants.add(TICKET, "h2", DIGEST)
    clock.now += TICKET_GOOD_S
    with pytest.raises(Denied):
        grants.use(TICKET, "h2", DIGEST)


@given(
    ticket=st.sampled_from([TICKET, b"x" * 16, b"", b"t" * 15]),
    peer=st.sampled_from(["h2", "h3", ""]),
    digest=st.sampled_from([DIGEST, "sha256:" + "b" * 64, ""]),
)
def test_only_the_whole_match_is_let_in(ticket, peer, digest):
    grants = Grants(FakeClock())
    grants.add(TICKET, "h2", DIGEST)
    if (ticket, peer, digest) == (TICKET, "h2", DIGEST):
        grants.use(ticket, peer, digest)
        return
    with pytest.raises(Denied) as refused:
        grants.use(ticket, peer, digest)
    assert refused.value.hint


def test_a_ticket_shown_by_the_wrong_host_is_spent(grants):
    with pytest.raises(Denied):
        grants.use(TICKET, "h3", DIGEST)
    with pytest.raises(Denied):
        grants.use(TICKET, "h2", DIGEST)


def test_a_wrong_guess_spends_nothing(grants):
    with pytest.raises(Denied):
        grants.use(b"x" * 16, "h2", DIGEST)
    grants.use(TICKET, "h2", DIGEST)


def test_a_short_ticket_is_never_granted(grants):
    with pytest.raises(InvalidInput):
        grants.add(b"", "h2", DIGEST)


def test_the_oldest_goes_when_there_are_too_many(grants):
    for number in range(GRANTS_LIMIT):
        grants.add(number.to_bytes(16, "big"), "h2", DIGEST)
    with pytest.raises(Denied):
        grants.use(TICKET, "h2", DIGEST)
    grants.use((GRANTS_LIMIT - 1).to_bytes(16, "big"), "h2", DIGEST)


async def test_only_so_many_wait_for_their_ticket(grants):
    waiters = [
        asyncio.create_task(grants.heard_of(b"x" * 16, patience_s=60.0))
        for _ in range(WAITERS_LIMIT)
    ]
    await asyncio.sleep(0)
    assert grants.waiting == WAITERS_LIMIT
    await grants.heard_of(b"x" * 16, patience_s=60.0)
    grants.add(b"x" * 16, "h2", DIGEST)
    await asyncio.gather(*waiters)
    assert grants.waiting == 0
