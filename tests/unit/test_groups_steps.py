"""What is to be done next for a group: it converges, never takes more than it may, and goes back when told to."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kit.grouping import World, group_of, member, revision, status_of, templated
from veapi.model import Run
from vecontroller.groups import progress
from vecontroller.groups.member import current
from vecontroller.groups.state import GroupState, shown
from vecontroller.groups.steps import Change, Forget, Make, Release, Remove, budget, next_steps

ROUNDS = 200


def test_missing_ves_are_made_at_once_and_by_their_numbers() -> None:
    group = group_of(3)
    steps = next_steps(group, status_of(group), [member(group, 1)])
    assert steps == (Make(ordinal=0, revision=1), Make(ordinal=2, revision=1))


def test_surplus_ves_go_from_the_highest_number_down() -> None:
    group = group_of(1)
    members = [member(group, ordinal) for ordinal in (0, 1, 2)]
    steps = next_steps(group, status_of(group), members)
    assert [step.ordinal for step in steps if isinstance(step, Remove)] == [2, 1]
    assert len(steps) == 2


def test_a_ve_that_is_being_deleted_holds_its_number_until_it_is_gone() -> None:
    group = group_of(1)
    assert next_steps(group, status_of(group), [member(group, 0, leaving=True)]) == ()


def test_a_changed_template_reaches_one_ve_at_a_time_the_highest_first() -> None:
    group = templated(group_of(3), pids=77)
    members = [member(group, ordinal, number=1) for ordinal in range(3)]
    (step,) = next_steps(group, status_of(group), members)
    assert isinstance(step, Change)
    assert (step.ordinal, step.revision) == (2, 2)


def test_nothing_more_is_changed_while_one_that_was_is_not_available() -> None:
    group = templated(group_of(3), pids=77)
    members = [member(group, 0, number=1), member(group, 1, number=1), member(group, 2, up=False)]
    assert next_steps(group, status_of(group), members) == ()


def test_a_ve_that_is_down_anyway_is_changed_before_those_that_run() -> None:
    group = templated(group_of(3), pids=77)
    members = [
        member(group, 0, number=1, up=False),
        member(group, 1, number=1),
        member(group, 2, number=1),
    ]
    (step,) = next_steps(group, status_of(group), members)
    assert step == Change(ordinal=0, revision=2, uid=members[0].uid)


def test_ves_of_a_revision_that_said_the_same_are_renumbered_at_once() -> None:
    group = group_of(3)
    back = msgspec.structs.replace(
        group, revisions=(msgspec.structs.replace(group.current, number=3),)
    )
    members = [member(group, ordinal) for ordinal in range(3)]
    assert len(next_steps(back, status_of(back), members)) == 3


def test_a_drifted_ve_is_changed_back() -> None:
    group = group_of(2)
    other = member(group, 1)
    spec = msgspec.structs.replace(other.ve.spec, pids=99)
    drifted = msgspec.structs.replace(other, ve=msgspec.structs.replace(other.ve, spec=spec))
    (step,) = next_steps(group, status_of(group), [member(group, 0), drifted])
    assert step == Change(ordinal=1, revision=1, uid=other.uid)


def test_a_ve_that_its_user_stopped_is_not_started_and_holds_up_the_others() -> None:
    group = templated(group_of(2), pids=77)
    stopped = member(group, 1, up=False, run=Run.STOPPED)
    assert next_steps(group, status_of(group), [member(group, 0, number=1), stopped]) == ()


def test_a_paused_or_stopped_rollout_changes_nobody_and_makes_what_is_missing_as_it_worked() -> (
    None
):
    group = templated(group_of(3), pids=77)
    members = [member(group, 0, number=1), member(group, 2, number=1)]
    paused = msgspec.structs.replace(group, paused=True)
    want = (Make(ordinal=1, revision=1),)
    assert next_steps(paused, status_of(group, stable=1), members) == want
    stopped = status_of(group, stable=1, stopped_revision=2)
    assert next_steps(group, stopped, members) == want
    again = msgspec.structs.replace(group, tries=1)
    assert Make(ordinal=1, revision=2) in next_steps(again, stopped, members)


def test_a_group_that_ends_takes_its_ves_along_or_lets_them_go_and_is_forgotten_last() -> None:
    group = msgspec.structs.replace(group_of(1), delete_requested_at=5.0)
    members = [member(group, 0)]
    uid = members[0].uid
    assert next_steps(group, status_of(group), members) == (Remove(ordinal=0, uid=uid),)
    keeping = msgspec.structs.replace(group, keep_ves=True)
    assert next_steps(keeping, status_of(group), members) == (Release(ordinal=0, uid=uid),)
    assert next_steps(group, status_of(group), [member(group, 0, leaving=True)]) == ()
    assert next_steps(group, status_of(group), []) == (Forget(),)


def test_a_share_is_rounded_down_but_to_one() -> None:
    for share, replicas, want in (("25%", 10, 2), ("25%", 3, 1), ("3", 2, 3), ("100%", 7, 7)):
        group = msgspec.structs.replace(group_of(replicas), max_unavailable=share)
        assert budget(group) == want


def test_a_rollout_without_progress_has_a_deadline_and_one_that_comes_and_goes_too() -> None:
    group = templated(group_of(2), pids=77)
    status = status_of(group, stable=1)
    up, down = [member(group, 0), member(group, 1, number=1)], [member(group, 1, number=1)]
    track = progress.tracked(None, group, down, 10.0)
    track = progress.tracked(track, group, up, 20.0)
    for now, members in ((30.0, down), (40.0, up)):
        track = progress.tracked(track, group, members, now)
    assert progress.deadline(group, status, track) == 20.0 + group.progress_deadline_s
    paused = msgspec.structs.replace(group, paused=True)
    assert progress.deadline(paused, status, track) is None
    assert progress.deadline(group, status_of(group, stable=2), track) is None


def test_the_state_says_what_is_waited_for() -> None:
    group = templated(group_of(2), pids=77)
    status = status_of(group, stable=1)
    members = [member(group, 0, number=1), member(group, 1, up=False)]
    found = shown(group, status, members, None)
    assert (found.state, found.updated, found.available) == (GroupState.PROGRESSING, 1, 1)
    assert found.why.message == "web-1: Failed: it does not run"
    fine = [member(group, 0), member(group, 1)]
    assert shown(group, status, fine, None).state is GroupState.READY
    done = status_of(group, stable=2)
    assert shown(group, done, members[1:] + fine[:1], None).state is GroupState.DEGRADED


replicas = st.integers(0, 7)
shares = st.sampled_from(("1", "2", "25%", "50%"))
wishes = st.lists(
    st.one_of(
        st.tuples(st.just("scale"), replicas),
        st.tuples(st.just("template"), st.integers(1, 4)),
        st.tuples(st.just("down"), st.integers(0, 6)),
        st.tuples(st.just("lost"), st.integers(0, 6)),
        st.tuples(st.just("steps"), st.integers(1, 3)),
    ),
    max_size=12,
)


@given(replicas, shares, wishes)
def test_safety_never_more_than_may_are_unavailable_by_our_doing(
    count: int, share: str, asked: list[tuple[str, int]]
) -> None:
    world = World(msgspec.structs.replace(group_of(count), max_unavailable=share))
    for wish in asked:
        world.wish(*wish)
        before = world.available
        world.act()
        lost = before - world.available
        spared = world.group.replicas - before
        assert lost <= max(0, budget(world.group) - spared)
        world.recover_some()


@given(replicas, shares, wishes)
def test_liveness_a_group_comes_to_what_was_asked_last_and_then_rests(
    count: int, share: str, asked: list[tuple[str, int]]
) -> None:
    world = World(msgspec.structs.replace(group_of(count), max_unavailable=share))
    for wish in asked:
        world.wish(*wish)
        world.act()
    for _ in range(ROUNDS):
        world.recover_all()
        if not world.act():
            break
    names = [each.name for each in world.members]
    assert names == [f"web-{ordinal}" for ordinal in range(world.group.replicas)]
    assert all(current(each, world.group.current) for each in world.members)
    assert progress.complete(world.group, world.members)


def test_an_undo_repairs_what_a_bad_template_took_down_before_all_else() -> None:
    world = World(group_of(4))
    world.settle()
    world.wish("template", 3)
    world.act()
    assert world.available == 3
    world.act()
    assert world.available == 3, "a template that does not work takes down one"
    world.group = templated(world.group, pids=revision(1).template.spec.pids)
    world.act()
    world.settle()
    assert world.available == 4
