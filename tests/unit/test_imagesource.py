import pytest

from kit.manualclock import ManualClock
from kit.world import DIGEST, make_facts, make_view
from veapi.model import HeldImage, HostName, HostState
from vecontroller.imagesource import ASKS_PER_ASKER, GRANTS_PER_ASKER, ImageSources
from vecontroller.relay import TICKET_LIFE_S

HELD = (HeldImage(digest=DIGEST, blob_digest="sha256:b", size_bytes=1, blob_bytes=1),)


class Hosts:
    def __init__(self):
        self.down = set()

    def connected(self, host):
        return host not in self.down

    def host_state(self, host):
        return HostState.SILENT if host in self.down else HostState.READY


class Rack:
    def __init__(self):
        self.told, self.hosts, self.clock = [], Hosts(), ManualClock()
        self.view = make_view(
            hosts={
                "h1": make_facts(images=HELD, address="10.0.0.1"),
                "h2": make_facts(images=HELD, address="10.0.0.2"),
                "h3": make_facts(),
            }
        )
        numbers = iter(range(1000))
        self.sources = ImageSources(
            lambda: self.view,
            self.hosts,
            self.tell,
            self.clock,
            new_ticket=lambda: next(numbers).to_bytes(16, "big"),
        )

    def tell(self, host, message):
        self.told.append((host, message.peer_grant))
        return True

    def find(self, asker="h3"):
        return self.sources.find(HostName(asker), DIGEST)


@pytest.fixture
def rack():
    return Rack()


def test_a_holder_is_named_and_told_to_expect_the_asker(rack):
    source = rack.find()
    assert (source.peer, source.address, source.blob_digest) == ("h1", "10.0.0.1:7444", "sha256:b")
    ((holder, grant),) = rack.told
    assert (holder, grant.peer, grant.digest) == ("h1", "h3", DIGEST)
    assert grant.ticket == source.ticket


def test_asks_are_spread_over_the_holders_and_grants_are_forgotten(rack):
    assert [rack.find().peer for _ in range(4)] == ["h1", "h2", "h1", "h2"]
    rack.find()
    rack.clock.jump(TICKET_LIFE_S)
    assert rack.find().peer == "h1"


def test_a_host_is_not_sent_to_itself(rack):
    assert rack.find(asker="h1").peer == "h2"


def test_only_live_holders_are_named(rack):
    rack.hosts.down = {"h1"}
    assert rack.find().peer == "h2"


def test_without_a_live_holder_the_failure_says_who_has_it(rack):
    rack.hosts.down = {"h1", "h2"}
    source = rack.find()
    assert source.failure.kind == "unavailable"
    assert "h1, h2" in source.failure.message
    assert not rack.told


def test_an_image_that_no_host_holds_is_not_found(rack):
    rack.view = make_view(hosts={"h3": make_facts()})
    assert rack.find().failure.kind == "not_found"


def test_a_host_that_asks_too_often_is_told_so_and_no_holder_hears_of_it(rack):
    for _ in range(GRANTS_PER_ASKER):
        assert rack.find().ticket
    refused = rack.find().failure
    assert "asked too often" in refused.message
    assert refused.hint
    assert len(rack.told) == GRANTS_PER_ASKER
    assert rack.find(asker="h1").peer == "h2"
    rack.clock.jump(TICKET_LIFE_S)
    assert rack.find().ticket


def test_a_host_that_asks_on_for_what_nobody_holds_is_looked_for_no_more(rack):
    looks = 0

    def view():
        nonlocal looks
        looks += 1
        return make_view(hosts={"h3": make_facts()})

    rack.sources = ImageSources(view, rack.hosts, rack.tell, rack.clock, new_ticket=bytes)
    for _ in range(ASKS_PER_ASKER):
        assert rack.find().failure.kind == "not_found"
    refused = rack.find().failure
    assert (refused.kind, looks) == ("unavailable", ASKS_PER_ASKER)
    assert "asked too often" in refused.message
    assert refused.hint
    assert rack.find(asker="h1").failure.kind == "not_found"
    rack.clock.jump(TICKET_LIFE_S)
    assert rack.find().failure.kind == "not_found"


def test_refused_asks_do_not_keep_a_host_out_for_longer(rack):
    rack.view = make_view(hosts={"h3": make_facts()})
    for _ in range(2 * ASKS_PER_ASKER):
        rack.find()
    rack.clock.jump(TICKET_LIFE_S / 2)
    assert rack.find().failure.kind == "unavailable"
    rack.clock.jump(TICKET_LIFE_S / 2)
    assert rack.find().failure.kind == "not_found"
