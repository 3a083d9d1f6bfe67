from kit.world import (
    DIGEST,
    make_deleted,
    make_facts,
    make_placement,
    make_ve,
    make_view,
)
from veapi.model import Action, HostName, Order, PeerHost, Placement, Run, WantedImage
from vecontroller import hostset

ORDER = Order(incarnation=1, epoch=2, revision=3)


def build(view, host="h1"):
    return hostset.build(view, HostName(host), order=ORDER)


def actions(found):
    return {entry.uid: entry.action for entry in found.entries}


def test_what_is_placed_on_the_host_is_in_its_set_and_nothing_else():
    view = make_view(
        ves=[make_ve("u1"), make_ve("u2"), make_ve("u3")],
        placements={"u1": make_placement("h1"), "u2": make_placement("h2")},
    )
    assert actions(build(view)) == {"u1": Action.RUN}


def test_the_action_follows_what_was_asked():
    ves = [
        make_ve("run"),
        make_ve("stop", run=Run.STOPPED),
        make_ve("gone", delete_requested_at=5.0),
        make_ve("both", run=Run.STOPPED, delete_requested_at=5.0, purge=True),
        make_ve("still", run=Run.FROZEN),
    ]
    view = make_view(ves=ves, placements={ve.uid: make_placement() for ve in ves})
    assert actions(build(view)) == {
        "run": Action.RUN,
        "stop": Action.STOP,
        "gone": Action.KEEP,
        "both": Action.PURGE,
        "still": Action.FREEZE,
    }


def test_what_a_host_keeps_of_deleted_ves_is_in_its_set_until_it_is_gone():
    view = make_view(deleted=[make_deleted("kept"), make_deleted("due", purging=True)])
    assert actions(build(view)) == {"kept": Action.KEEP, "due": Action.PURGE}
    assert build(view, "h2").entries == ()


def test_a_ve_that_came_back_is_asked_for_once():
    view = make_view(
        ves=[make_ve("u1")],
        placements={"u1": make_placement(generation=2)},
        deleted=[make_deleted("u1")],
    )
    assert actions(build(view)) == {"u1": Action.RUN}


def test_an_entry_carries_all_that_the_agent_needs():
    ve = make_ve("u1", generation=4, restart_seq=2, stop_timeout_s=7.0, labels={"a": "b"})
    view = make_view(ves=[ve], placements={"u1": make_placement(generation=3)})
    (entry,) = build(view).entries
    assert (entry.generation, entry.placement_generation, entry.restart_seq) == (4, 3, 2)
    assert (entry.stop_timeout_s, entry.image_digest, entry.ip) == (7.0, DIGEST, ve.ip)
    assert (entry.spec, entry.labels, entry.mac) == (ve.spec, {"a": "b"}, ve.mac)


def test_peers_are_all_other_hosts_by_name():
    hosts = {name: make_facts(address=f"10.0.0.{name[1]}") for name in ("h3", "h1", "h2")}
    peers = build(make_view(hosts=hosts)).peers
    assert peers == (
        PeerHost(name="h2", address="10.0.0.2"),
        PeerHost(name="h3", address="10.0.0.3"),
    )


def test_what_is_said_of_images_is_in_the_set_as_it_is():
    images = (WantedImage(digest=DIGEST, blob_digest="sha256:b", spare=True),)
    built = hostset.build(make_view(), HostName("h1"), order=ORDER, images=images)
    assert built.images == images


def test_the_same_wishes_give_the_same_set_whatever_order_they_came_in():
    ves = [make_ve(f"u{index}") for index in range(9)]
    placements: dict[str, Placement] = {ve.uid: make_placement() for ve in ves}
    first = build(make_view(ves=ves, placements=placements))
    second = build(make_view(ves=ves[::-1], placements=dict(reversed(list(placements.items())))))
    assert first == second


def test_a_placement_without_a_spec_asks_for_nothing():
    assert build(make_view(placements={"u1": make_placement()})).entries == ()
