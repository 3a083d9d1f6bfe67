"""A view in which one VE may be moved: h1, which has it, is lost; h2 and h3 answer. Tests spoil one thing of it at a time."""

import msgspec

from kit.world import DIGEST, held, make_facts, make_placement, make_ve, make_view
from veapi.model import (
    FenceFacts,
    HeldImage,
    HostName,
    OnHostLoss,
    Timing,
    Uid,
    VEState,
    VEStatus,
)
from vecontroller.view import View

H1, H2, H3 = HostName("h1"), HostName("h2"), HostName("h3")
U1 = Uid("u1")
WALL = 1_700_000_000.0


def fenced_ve(uid="u1", **options):
    fields = {"policy_generation": 1, "ip": f"10.66.1.{len(uid)}{ord(uid[-1]) % 100}"}
    ve = make_ve(uid, **{**fields, **options})
    return with_policy(ve, OnHostLoss.RECREATE)


def with_policy(ve, policy):
    return msgspec.structs.replace(ve, spec=msgspec.structs.replace(ve.spec, on_host_loss=policy))


def armed(*, placement_generation=1, armed_generation=1, **options):
    return VEStatus(
        state=VEState.RUNNING,
        placement_generation=placement_generation,
        armed_generation=armed_generation,
        **options,
    )


def fencing_facts(*, images=True, fence=None, **options):
    image = HeldImage(digest=DIGEST, blob_digest="b", size_bytes=1, blob_bytes=1)
    return make_facts(
        images=(image,) if images else (),
        fence=fence or FenceFacts(live=True, timing=Timing()),
        **options,
    )


def lost_view(**options):
    fields = {
        "ves": [fenced_ve()],
        "placements": {"u1": make_placement("h1")},
        "statuses": {"u1": armed()},
        "hosts": {name: fencing_facts() for name in (H1, H2, H3)},
    }
    return make_view(**{**fields, **options})


def with_cluster(view: View, **changes) -> View:
    assert view.cluster is not None
    view.cluster = held(msgspec.structs.replace(view.cluster.value, **changes))
    return view
