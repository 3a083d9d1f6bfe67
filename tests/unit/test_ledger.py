"""What a host has given away: VEs, the disks of deleted ones, images; and what the scheduler and the API take together."""

from kit.world import GIB, held, make_deleted, make_facts, make_placement, make_ve, make_view
from veapi.model import Digest, HeldImage, HostName, Resources, RootWish, Uid
from vecontroller.placement import committed, free, request

H1 = HostName("h1")
IMAGE = HeldImage(digest=Digest("d"), blob_digest="b", size_bytes=3 * GIB, blob_bytes=GIB)


def test_deleted_ves_and_images_count_on_the_disk_of_their_host_alone():
    view = make_view(
        ves=[make_ve("u1")],
        placements={"u1": make_placement("h1")},
        hosts={"h1": make_facts(images=(IMAGE,)), "h2": make_facts()},
        deleted=[make_deleted("u2"), make_deleted("u3", purging=True), make_deleted("u4", "h2")],
    )
    assert committed(view, H1) == Resources(
        cpu_millis=1000, memory_bytes=GIB, disk_bytes=GIB + 2 * (GIB // 2) + 4 * GIB, pids=100
    )
    assert committed(view, HostName("h2")).disk_bytes == GIB // 2


def test_what_is_left_is_without_what_is_coming_and_may_be_below_nothing():
    view = make_view(hosts={"h1": make_facts(capacity=Resources(memory_bytes=GIB))})
    left = free(view, H1, [Resources(memory_bytes=GIB), Resources(memory_bytes=1, pids=2)])
    assert left == Resources(memory_bytes=-1, pids=-2)
    assert free(view, HostName("h9"), []) is None


def clone_of(uid: str):
    return held(make_ve("clone", root=RootWish(from_uid=Uid(uid))))


def test_a_clone_wants_the_host_of_its_source_also_of_a_deleted_one():
    view = make_view(
        ves=[make_ve("u1")],
        placements={"u1": make_placement("h3")},
        deleted=[make_deleted("u2", "h2"), make_deleted("u3", "h2", purging=True)],
    )
    assert request(view, clone_of("u1")).host == "h3"
    assert request(view, clone_of("u2")).host == "h2"
    for lost in ("u3", "nobody"):
        assert "gone" in request(view, clone_of(lost)).gone
    assert request(view, held(make_ve("u5"))).gone == ""
