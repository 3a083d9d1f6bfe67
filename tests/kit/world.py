"""Values of a made-up cluster for tests: VEs, hosts, and a view that holds them."""

from collections.abc import Iterable

from veapi.model import (
    VE,
    Cluster,
    Deleted,
    Digest,
    HostFacts,
    HostName,
    Image,
    Placement,
    Resources,
    Run,
    Spec,
    Uid,
    VEStatus,
)
from vecontroller.view import Held, View

GIB = 1 << 30
DIGEST = Digest("sha256:" + "a" * 64)


def make_ve(uid: str = "u1", **options) -> VE:
    """A VE named after its uid, in project default; `run`, `memory_bytes` and `host` go to its spec."""
    spec = Spec(
        image="base",
        cpu_millis=1000,
        memory_bytes=options.pop("memory_bytes", GIB),
        disk_bytes=GIB,
        pids=100,
        run=options.pop("run", Run.RUNNING),
        host=options.pop("host", ""),
    )
    fields = {
        "name": f"n-{uid}",
        "project": "default",
        "labels": {},
        "generation": 1,
        "created_at": 100.0,
        "image_digest": DIGEST,
        "ip": "10.66.0.9",
        "mac": "02:00:00:00:00:09",
    }
    return VE(uid=Uid(uid), spec=spec, **{**fields, **options})


def make_placement(host: str = "h1", **options) -> Placement:
    fields = {"generation": 1, "decided_at": 101.0, "message": "because"}
    return Placement(host=HostName(host), **{**fields, **options})


def make_deleted(uid: str = "u1", host: str = "h1", **options) -> Deleted:
    """Deleted at 100 and kept until 900."""
    ve = options.pop("ve", None) or make_ve(uid, delete_requested_at=100.0)
    fields = {"deleted_at": 100.0, "purge_at": 900.0, "disk_used_bytes": GIB // 2}
    return Deleted(ve=ve, placement=make_placement(host), **{**fields, **options})


def make_facts(rack: str = "r1", **options) -> HostFacts:
    fields = {
        "boot_id": "b",
        "version": "0",
        "labels": {"rack": rack},
        "capacity": Resources(
            cpu_millis=64_000, memory_bytes=64 * GIB, disk_bytes=640 * GIB, pids=32_768
        ),
        "address": "127.0.0.1",
        "peer_port": 7444,
    }
    return HostFacts(**{**fields, **options})


def make_image(digest: Digest = DIGEST) -> Image:
    return Image(digest=digest, blob_digest="sha256:b", size_bytes=1, blob_bytes=1, created_at=1.0)


def make_view(
    *,
    ves: Iterable[VE] = (),
    placements: dict[str, Placement] | None = None,
    statuses: dict[str, VEStatus] | None = None,
    hosts: dict[str, HostFacts] | None = None,
    images: Iterable[Image] = (),
    deleted: Iterable[Deleted] = (),
) -> View:
    """A view at revision 10 in which everything was written at revision 5."""
    view = View(revision=10, cluster=held(Cluster(name="rack")))
    view.ves = {ve.uid: held(ve) for ve in ves}
    view.hosts = {HostName(name): held(facts) for name, facts in (hosts or {}).items()}
    view.images = {image.digest: held(image) for image in images}
    view.statuses = {Uid(uid): held(status) for uid, status in (statuses or {}).items()}
    for uid, placement in (placements or {}).items():
        view.placements[Uid(uid)] = held(placement)
        view.placed_on[placement.host].add(Uid(uid))
    for kept in deleted:
        view.deleted[kept.ve.uid] = held(kept)
        view.deleted_on[kept.placement.host].add(kept.ve.uid)
    return view


def held(value):
    return Held(value=value, mod_revision=5, create_revision=5)
