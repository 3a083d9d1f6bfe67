"""Groups in the store and in the view: they come back as they went, and the index of their VEs follows."""

import msgspec
import pytest

from kit.grouping import group_of, templated
from kit.world import make_ve
from veapi.model import VE, Event, EventType, GroupStatus, Uid
from veapi.v1 import group_pb2
from vecontroller import fold
from vecontroller.store import keys, values
from vecontroller.store.port import StoreItem
from vecontroller.store.values import Unreadable
from vecontroller.view import View

KEY = ("default", "web")


def test_a_group_comes_back_as_it_went() -> None:
    group = msgspec.structs.replace(
        templated(group_of(3), pids=77, env={"A": "b"}, spread=("app=web over rack",)),
        labels={"team": "a"},
        max_unavailable="25%",
        min_ready_s=2.5,
        progress_deadline_s=30.0,
        paused=True,
        delete_requested_at=7.0,
        keep_ves=True,
        tries=2,
        op_id="op",
        request_id="r",
    )
    assert values.decode_group(values.encode_group(group)) == group
    assert values.op_id(keys.group(*KEY), values.encode_group(group)) == "op"


def test_its_status_comes_back_as_it_went() -> None:
    event = Event(at=3.0, type=EventType.WARNING, reason="RolloutStopped", message="why")
    status = GroupStatus(
        uid="g1",
        stable=2,
        stopped_revision=3,
        stopped_try=1,
        stopped_why="why",
        events=(event,),
        op_id="op",
    )
    assert values.decode_group_status(values.encode_group_status(status)) == status


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        group_pb2.StoredGroup(schema=99, uid="g").SerializeToString(),
        group_pb2.StoredGroup(schema=1, uid="g", name="web", project="p").SerializeToString(),
    ],
    ids=["empty", "garbage", "newer", "no revision"],
)
def test_what_is_no_group_of_ours_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        values.decode_group(data)


def stored(key: str, ve: VE, revision: int) -> StoreItem:
    value = values.encode_ve(ve)
    return StoreItem(key=key, value=value, mod_revision=revision, create_revision=5)


def test_the_view_knows_which_ves_name_a_group_and_tells_whom_a_change_concerns() -> None:
    view, changes = View(), fold.Changes()
    ve = msgspec.structs.replace(make_ve("u1"), group="web", group_revision=2)
    key = keys.ve_spec(Uid("u1"))
    fold.apply(view, key, stored(key, ve, 5), changes)
    assert view.members == {KEY: {Uid("u1")}}
    assert view.ves[Uid("u1")].value == ve
    assert changes.groups == {KEY}
    free, changes = msgspec.structs.replace(ve, group=""), fold.Changes()
    fold.apply(view, key, stored(key, free, 6), changes)
    assert view.members == {}
    assert changes.groups == {KEY}, "also of the group that it left"
    fold.apply(view, key, None, fold.Changes())
    assert view.members == {}
