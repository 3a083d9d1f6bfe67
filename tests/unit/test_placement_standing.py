"""The board that stands from one decision to the next is the one that would be made anew."""

from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kit.world import GIB, make_deleted, make_facts, make_placement, make_ve
from veapi.model import FenceFacts, HostName, HostSpec, HostState, OnHostLoss, Resources, Uid
from vecontroller import fold
from vecontroller.placement import Board, Rules, explain, host_rows, place, request
from vecontroller.placement.standing import StandingBoard
from vecontroller.store import keys, values
from vecontroller.store.port import StoreItem
from vecontroller.view import Held, View

HOSTS = [HostName(f"h{number}") for number in range(4)]
UIDS = [Uid(f"u{number}") for number in range(5)]
hosts, uids = st.sampled_from(HOSTS), st.sampled_from(UIDS)
APART = ("app=web over rack",)


def ve_of(uid: Uid, label: str, size: int, *, apart: bool):
    ve = make_ve(uid, labels={"app": label}, memory_bytes=size * GIB)
    spec = msgspec.structs.replace(ve.spec, apart=APART if apart else ())
    if size % 2:
        spec = msgspec.structs.replace(spec, on_host_loss=OnHostLoss.RECREATE)
    return msgspec.structs.replace(ve, spec=spec)


ves = st.builds(ve_of, uids, st.sampled_from(["web", "db"]), st.integers(1, 9), apart=st.booleans())
facts = st.builds(
    make_facts,
    rack=st.sampled_from(["r1", "r2"]),
    refuses=st.sampled_from(["", "", "full"]),
    fence=st.builds(FenceFacts, live=st.booleans()),
)
changes = st.one_of(
    st.builds(
        lambda host, value: (keys.host_status(host), values.encode_host_status(value)), hosts, facts
    ),
    st.builds(lambda host: (keys.host_status(host), None), hosts),
    st.builds(
        lambda host, taints: (
            keys.host_spec(host),
            values.encode_host_spec(HostSpec(taints=taints)),
        ),
        hosts,
        st.sampled_from([(), ("gpu",)]),
    ),
    st.builds(lambda ve: (keys.ve_spec(ve.uid), values.encode_ve(ve)), ves),
    st.builds(lambda uid: (keys.ve_spec(uid), None), uids),
    st.builds(
        lambda uid, host: (keys.ve_placement(uid), values.encode_placement(make_placement(host))),
        uids,
        hosts,
    ),
    st.builds(lambda uid: (keys.ve_placement(uid), None), uids),
    st.builds(
        lambda uid, host: (keys.ve_deleted(uid), values.encode_deleted(make_deleted(uid, host))),
        uids,
        hosts,
    ),
    st.builds(lambda uid: (keys.ve_deleted(uid), None), uids),
    st.just(("", None)),
)


def stored(key: str, value: bytes, revision: int) -> StoreItem:
    return StoreItem(key=key, value=value, mod_revision=revision, create_revision=revision)


def same(board: Board, fresh: Board) -> None:
    assert board.hosts == fresh.hosts
    for name in ("capacity", "free", "placed", "able", "rack", "rack_placed", "rack_hosts"):
        assert np.array_equal(getattr(board, name), getattr(fresh, name)), name


@given(
    st.lists(
        st.tuples(st.lists(changes, max_size=4), st.sets(hosts, max_size=2), hosts), max_size=8
    )
)
def test_whatever_changed_it_is_the_board_that_would_be_made_anew(story):
    view, standing = View(), StandingBoard(Rules())
    wanted = [
        request(View(), Held(ve_of(Uid(f"w{index}"), "web", 2, apart=index < 2), 1, index))
        for index in range(3)
    ]
    for revision, (pairs, silent, busy) in enumerate(story, start=1):
        for key, value in pairs:
            item = None if value is None else stored(key, value, revision)
            fold.apply(view, key, item, fold.Changes())
        seen: dict[str, Any] = {
            "state": lambda host, away=silent: (
                HostState.SILENT if host in away else HostState.READY
            ),
            "connected": lambda _host: True,
            "in_flight": {busy: [Resources(memory_bytes=GIB)]},
        }
        board, fresh = standing.look(view, **seen), Board(host_rows(view, **seen))
        same(board, fresh)
        made = place(board, wanted)
        assert made == place(fresh, wanted)
        board.rewind()
        same(board, Board(host_rows(view, **seen)))
        assert explain(board, wanted[0]) == explain(Board(host_rows(view, **seen)), wanted[0])


def test_hosts_that_did_not_change_keep_their_rows():
    view, standing = View(), StandingBoard(Rules())
    seen: dict[str, Any] = {
        "state": lambda _h: HostState.READY,
        "connected": lambda _h: True,
        "in_flight": {},
    }

    def put(host: HostName) -> None:
        value = values.encode_host_status(make_facts(metrics_address=f"a:{view.touches}"))
        item = stored("", value, 1)
        fold.apply(view, keys.host_status(host), item, fold.Changes())

    for host in HOSTS:
        put(host)
    board, before = standing.look(view, **seen), standing.rows
    put(HOSTS[1])
    assert standing.look(view, **seen) is board
    kept = [was is now for was, now in zip(before, standing.rows, strict=True)]
    assert kept == [True, False, True, True]
