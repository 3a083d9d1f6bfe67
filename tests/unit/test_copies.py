"""Which hosts hold an image, and which copies may go."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.world import DIGEST, held, make_facts, make_image, make_placement, make_ve, make_view
from veapi.model import Deleted, Digest, HeldImage, HostName, Prefetch, Uid
from vecontroller.copies import Copies, Holdings, chosen
from vecontroller.store import keys
from vecontroller.view import Held

OTHER = Digest("sha256:" + "b" * 64)
HOSTS = [HostName(f"h{number}") for number in range(1, 9)]


def holding(*digests):
    return tuple(
        HeldImage(digest=digest, blob_digest="sha256:b", size_bytes=1, blob_bytes=1)
        for digest in digests
    )


def rack(holders=(), *, hosts=HOSTS, digest=DIGEST, **options):
    facts = {
        name: make_facts(images=holding(digest) if name in holders else (), **options)
        for name in hosts
    }
    return make_view(hosts=facts, images=[make_image()])


def copies(view, gone=(), replicas=3):
    return Copies(lambda: view, lambda host: host in gone, replicas=replicas)


def of(view, host, **options):
    """digest -> spare, as the set of the host says."""
    return {image.digest: image.spare for image in copies(view, **options).of_host(host)}


def wanting(view, **options):
    return {host for host in view.hosts if of(view, host, **options) == {DIGEST: False}}


def test_an_image_is_wanted_on_three_hosts():
    view = rack()
    assert len(wanting(view)) == 3
    assert wanting(view) == copies(view).base(DIGEST) == copies(view).wanted_on(DIGEST)


def test_with_fewer_hosts_than_copies_all_hold_it():
    assert wanting(rack(hosts=HOSTS[:2])) == set(HOSTS[:2])


@given(st.sets(st.sampled_from(HOSTS), min_size=4), st.sampled_from(HOSTS))
def test_a_host_that_leaves_moves_only_its_own_images(names, leaver):
    before = set(chosen(DIGEST, names, 3))
    after = set(chosen(DIGEST, names - {leaver}, 3))
    assert before - {leaver} <= after
    assert len(after - before) == (leaver in before)


def test_images_are_spread_over_the_hosts():
    digests = [Digest(f"sha256:{number:064x}") for number in range(200)]
    counts = [sum(host in chosen(digest, HOSTS, 3) for digest in digests) for host in HOSTS]
    assert min(counts) > 40


def test_a_host_that_uses_it_holds_it():
    view = rack()
    user = next(host for host in HOSTS if host not in wanting(view))
    view.ves[Uid("u1")] = held(make_ve("u1"))
    view.placements[Uid("u1")] = held(make_placement(user))
    view.placed_on[user].add(Uid("u1"))
    assert of(view, user) == {DIGEST: False}
    assert user in copies(view).wanted_on(DIGEST)


def test_a_host_that_keeps_a_deleted_ve_of_it_holds_it():
    view = rack()
    user = next(host for host in HOSTS if host not in wanting(view))
    kept = Deleted(ve=make_ve("u1"), placement=make_placement(user), deleted_at=1.0, purge_at=2.0)
    view.deleted[Uid("u1")] = held(kept)
    view.deleted_on[user].add(Uid("u1"))
    assert of(view, user) == {DIGEST: False}
    assert user in copies(view).wanted_on(DIGEST)


def test_prefetch_is_for_the_hosts_that_are_named_and_those_that_are_selected():
    view = rack()
    view.hosts[HOSTS[7]] = held(make_facts(rack="r9"))
    others = [host for host in HOSTS[:7] if host not in wanting(view)]
    prefetch = Prefetch(selector="rack=r9", hosts=(others[0],))
    view.images[DIGEST] = held(msgspec.structs.replace(make_image(), prefetch=prefetch))
    assert wanting(view) >= {HOSTS[7], others[0]}
    assert others[1] not in wanting(view)


def test_a_prefetch_that_changes_counts_at_once():
    view = rack()
    made = copies(view)
    assert len(made.base(DIGEST)) == 3
    image = msgspec.structs.replace(make_image(), prefetch=Prefetch(selector="rack"))
    view.images[DIGEST] = Held(value=image, mod_revision=6, create_revision=5)
    assert made.base(DIGEST) == set(HOSTS)


@pytest.mark.parametrize("why", ["gone", "full"])
def test_a_host_that_can_not_take_it_is_not_chosen_and_another_is(why):
    view = rack()
    unable = min(wanting(view))
    if why == "full":
        view.hosts[unable] = held(make_facts(refuses="the pool is full"))
    gone = [unable] if why == "gone" else []
    assert unable not in copies(view, gone).base(DIGEST)
    assert len(copies(view, gone).base(DIGEST)) == 3


# Which copies may go.


def test_a_copy_is_spare_only_once_all_chosen_hosts_hold_it():
    base = sorted(copies(rack()).base(DIGEST))
    extra = next(host for host in HOSTS if host not in base)
    for count in range(3):
        assert of(rack([extra, *base[:count]]), extra) == {DIGEST: False}
    assert of(rack([extra, *base]), extra) == {DIGEST: True}


def test_other_spare_copies_do_not_count():
    base = sorted(copies(rack()).base(DIGEST))
    extras = [host for host in HOSTS if host not in base]
    view = rack([*extras, *base[:2]])
    assert {extra: of(view, extra) for extra in extras} == {key: {DIGEST: False} for key in extras}


def test_a_copy_that_is_used_is_never_spare():
    base = sorted(copies(rack()).base(DIGEST))
    extra = next(host for host in HOSTS if host not in base)
    view = rack([extra, *base])
    view.ves[Uid("u1")] = held(make_ve("u1"))
    view.placements[Uid("u1")] = held(make_placement(extra))
    view.placed_on[extra].add(Uid("u1"))
    assert of(view, extra) == {DIGEST: False}


def test_on_a_rack_of_two_nothing_is_spare():
    view = rack(HOSTS[:2], hosts=HOSTS[:2])
    assert of(view, HOSTS[0]) == {DIGEST: False}


def test_a_full_host_gives_its_copy_away_first():
    base = sorted(copies(rack()).base(DIGEST))
    view = rack(base)
    view.hosts[base[0]] = held(make_facts(refuses="full", images=holding(DIGEST)))
    assert of(view, base[0]) == {DIGEST: False}
    fourth = next(iter(copies(view).base(DIGEST) - set(base)))
    view.hosts[fourth] = held(make_facts(images=holding(DIGEST)))
    assert of(view, base[0]) == {DIGEST: True}


def test_a_deleted_image_is_spare_everywhere():
    view = rack(HOSTS[:1], digest=OTHER)
    assert of(view, HOSTS[0]).get(OTHER) is True


def test_of_what_a_host_does_not_hold_and_need_not_nothing_is_said():
    view = rack()
    idle = next(host for host in HOSTS if host not in wanting(view))
    assert of(view, idle) == {}


@given(st.sets(st.sampled_from(HOSTS)), st.sets(st.sampled_from(HOSTS)))
def test_never_fewer_than_three_copies_when_all_that_is_spare_goes(holders, gone):
    view = rack(holders)
    kept = {host for host in holders if of(view, host, gone=gone) != {DIGEST: True}}
    assert len(kept) >= min(3, len(holders))


# Whom news concern.


def test_news_of_an_image_concern_those_that_hold_it():
    view = rack(HOSTS[:2])
    told = Holdings(copies(view), lambda: view)
    assert told.concerned([]) is None
    assert told.concerned(HOSTS) == frozenset()
    view.hosts[HOSTS[5]] = held(make_facts(images=holding(DIGEST)))
    assert told.concerned([HOSTS[5]]) == frozenset((HOSTS[0], HOSTS[1], HOSTS[5]))
    view.hosts[HOSTS[5]] = held(make_facts())
    assert told.concerned([HOSTS[5]]) == frozenset((HOSTS[0], HOSTS[1], HOSTS[5]))


def test_a_host_that_becomes_unable_concerns_everybody():
    view = rack()
    told = Holdings(copies(view), lambda: view)
    told.concerned([])
    view.hosts[HOSTS[0]] = held(make_facts(refuses="full"))
    assert told.concerned([HOSTS[0]]) is None


def test_a_copy_of_an_image_whose_record_can_not_be_read_is_not_spare():
    view = rack(HOSTS)
    del view.images[DIGEST]
    assert of(view, HOSTS[0]) == {DIGEST: True}
    view.quarantined[keys.image(DIGEST)] = 7
    assert of(view, HOSTS[0]) == {DIGEST: False}
