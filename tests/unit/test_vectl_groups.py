"""Groups in vectl: what a manifest asks for, and when waiting for one is over."""

import asyncio
from typing import cast

import pytest

from veapi.errors import Conflict, InvalidInput, NoHostFits, RemoteFailed, TimedOut, VerackError
from veapi.v1.group_pb2 import (
    ApplyGroupResponse,
    Group,
    GroupChange,
    GroupSpec,
    GroupStatus,
)
from vectl import groupasks, manifest
from vectl.client import Client
from vectl.groupcalls import message
from vectl.groupwait import describe, follow, follow_end, judge
from vectl.mutate import AT_ONCE
from vectl.wanted import Wanted, WantedGroup

WHOLE = b"""\
kind: Group
metadata: {name: web, project: shop, labels: {team: a}}
spec:
  replicas: 3
  max_unavailable: 25%
  min_ready: 5s
  progress_deadline: 2m
  paused: true
  template:
    labels: {app: web}
    spec: {image: debian, memory: 1G, spread: ["app=web over rack"]}
"""
LEAST = b"kind: Group\nmetadata: {name: web}\nspec: {template: {spec: {image: debian}}}\n"


def group_of(text: bytes) -> WantedGroup:
    ((_, found),) = manifest.parse_all(text, "web.yaml")
    assert isinstance(found, WantedGroup)
    return found


def seen(state: str, reason: str = "", text: str = "") -> Group:
    status = GroupStatus(
        state=state, reason=reason, message=text, available=2, updated=1, revision=4
    )
    return Group(name="web", spec=GroupSpec(replicas=3), status=status)


def test_a_manifest_says_all_of_a_group() -> None:
    found = message(group_of(WHOLE), "default")
    spec = found.spec
    assert (found.name, found.project, dict(found.labels)) == ("web", "shop", {"team": "a"})
    assert (spec.replicas, spec.max_unavailable, spec.min_ready) == (3, "25%", 5.0)
    assert (spec.progress_deadline, spec.paused) == (120.0, True)
    assert dict(spec.template.labels) == {"app": "web"}
    assert spec.template.spec.memory_bytes == 1 << 30
    assert list(spec.template.spec.spread) == ["app=web over rack"]


def test_what_a_manifest_leaves_out_stays_unset() -> None:
    found = message(group_of(LEAST), "default")
    assert found.project == "default"
    for field in ("replicas", "min_ready", "progress_deadline", "paused"):
        assert not found.spec.HasField(field)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"replicas: 3", b"replicas: some", "replicas"),
        (b"replicas: 3", b"replicas: 9999999999999", "replicas"),
        (b"paused: true", b"paused: perhaps", "true or false"),
        (b"min_ready: 5s", b"min_ready: soon", "min_ready"),
        (b"  template:\n", b"  pattern:\n", "pattern"),
        (b"image: debian, ", b"", "image is missing"),
        (b"max_unavailable", b"max_unavailble", "did you mean max_unavailable"),
        (b"kind: Group", b"kind: Groups", "Groups"),
    ],
)
def test_a_wrong_manifest_names_line_and_field(old: bytes, new: bytes, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        manifest.parse_all(WHOLE.replace(old, new), "web.yaml")
    assert refused.value.message.startswith("web.yaml, line ")
    assert says in refused.value.message + refused.value.hint


def test_where_only_ves_are_meant_a_group_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidInput, match=r"web\.yaml, line 1: kind: Group"):
        manifest.parse(LEAST, "web.yaml")


@pytest.mark.parametrize("state", ["Ready", "Paused"])
def test_waiting_ends_when_all_is_as_asked_or_held(state: str) -> None:
    assert judge(seen(state)) is True


@pytest.mark.parametrize("state", ["Progressing", "Degraded", "Deleting"])
def test_waiting_goes_on_while_something_may_come(state: str) -> None:
    assert judge(seen(state)) is False


def test_a_stopped_rollout_and_a_ve_without_a_host_end_the_wait_with_what_to_do() -> None:
    stopped = judge(seen("Stopped", "ProgressDeadline", "no further VE"))
    assert isinstance(stopped, RemoteFailed)
    assert "vectl group rollout undo web" in stopped.hint
    refused = judge(seen("Progressing", "NoHostFits", "web-2: 3 hosts: 3 too little memory"))
    assert isinstance(refused, NoHostFits)
    assert refused.exit_code == 5


def test_a_description_counts_and_gives_the_reason_on_one_line() -> None:
    text = describe(seen("Progressing", "X", "web-2:\nCreating\x1b[31m"))
    assert text == "Progressing: 2 of 3 available, 1 of revision 4: web-2: Creating[31m"


async def changes(*found: GroupChange):
    for change in found:
        yield change


async def test_following_tells_each_step_once_and_gives_the_group_at_last(capsys) -> None:
    steps = [GroupChange(group=seen("Progressing"))] * 2 + [GroupChange(group=seen("Ready"))]
    assert (await follow(changes(*steps), "web", timeout_s=5)).status.state == "Ready"
    assert len(capsys.readouterr().err.splitlines()) == 2


async def test_following_a_group_that_goes_is_a_conflict_unless_that_was_asked() -> None:
    gone = GroupChange(group=seen("Deleting"), gone=True)
    with pytest.raises(Conflict, match="deleted meanwhile"):
        await follow(changes(gone), "web", timeout_s=5)
    await follow_end(changes(gone), "web", timeout_s=5)


async def test_what_is_late_is_told_with_what_it_waits_for() -> None:
    async def for_ever():
        yield GroupChange(group=seen("Progressing", "", "web-2: Creating"))
        await changes_never()

    with pytest.raises(TimedOut, match="web-2: Creating"):
        await follow(for_ever(), "web", timeout_s=0.05)


async def changes_never() -> None:
    await asyncio.Event().wait()


async def test_a_manifest_of_many_groups_asks_of_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, most = 0, 0

    class Slow:
        def __init__(self, client: object) -> None:
            del client

        async def apply(self, wanted: WantedGroup, *, dry_run: bool) -> ApplyGroupResponse:
            nonlocal asked, most
            assert dry_run
            asked += 1
            most = max(most, asked)
            for _ in range(3):
                await asyncio.sleep(0)
            asked -= 1
            return ApplyGroupResponse(group=Group(name=wanted.name))

    monkeypatch.setattr("vectl.groupcalls.Groups", Slow)
    template = Wanted(name="", image="debian")
    wanted = [WantedGroup(name=f"g{number}", template=template) for number in range(100)]
    found = await groupasks.diff_groups(cast("Client", None), wanted)
    assert [each.group.name for each in found if not isinstance(each, VerackError)] == [
        each.name for each in wanted
    ]
    assert most == AT_ONCE
