"""Quotas: what is exceeded, what a project has after any history, and that no interleaving of writes passes one."""

from contextlib import ExitStack

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kit.manualclock import ManualClock
from kit.world import make_ve
from veapi.errors import Conflict
from veapi.model import VE, Project, ProjectAmounts, SnapshotWish, Uid
from vecontroller import allowance, quota
from vecontroller.fold import Changes, apply
from vecontroller.holding import Reserved
from vecontroller.store import keys, values
from vecontroller.store.port import StoreItem
from vecontroller.view import Held, View

GIB = 1 << 30


def ve_with(uid: str, memory_gib: int, *, snapshots: int = 0, leaving: int = 0):
    ve = make_ve(uid)
    wishes = tuple(
        SnapshotWish(tag=f"s{seq}", seq=seq, created_at=1.0, deleting=seq > snapshots)
        for seq in range(1, snapshots + leaving + 1)
    )
    spec = msgspec.structs.replace(ve.spec, memory_bytes=memory_gib * GIB)
    return msgspec.structs.replace(ve, spec=spec, snapshots=wishes)


def put(view: View, ve) -> None:
    item = StoreItem(
        key=keys.ve_spec(ve.uid), value=values.encode_ve(ve), mod_revision=1, create_revision=1
    )
    apply(view, item.key, item, Changes())


def test_all_that_is_exceeded_is_named_with_numbers_and_nothing_else() -> None:
    limits = ProjectAmounts(ves=2, cpu_millis=4000, memory_bytes=16 * GIB)
    used = ProjectAmounts(ves=1, cpu_millis=3500, memory_bytes=12 * GIB, disk_bytes=900 * GIB)
    asked = ProjectAmounts(ves=1, cpu_millis=1000, memory_bytes=6 * GIB, disk_bytes=GIB)
    assert quota.exceeded(limits, used, asked) == (
        "cpu 3.5 of 4 used, 1 asked",
        "memory 12 GiB of 16 GiB used, 6 GiB asked",
    )


def test_what_does_not_grow_is_never_exceeded() -> None:
    limits, used = ProjectAmounts(ves=1, snapshots=1), ProjectAmounts(ves=5, snapshots=0)
    assert quota.exceeded(limits, used, ProjectAmounts(snapshots=1)) == ()


def test_leaving_snapshots_do_not_count() -> None:
    assert quota.of_ve(ve_with("a", 1, snapshots=2, leaving=3)).snapshots == 2


_STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 8), st.integers(0, 3)), max_size=30
)


@given(_STEPS)
def test_what_the_mirror_counts_is_what_its_ves_add_up_to(steps) -> None:
    view = View()
    for name, memory, snapshots in steps:
        if memory:
            put(view, ve_with(name, memory, snapshots=snapshots))
        else:
            apply(view, keys.ve_spec(Uid(name)), None, Changes())
    total = quota.NOTHING
    for held in view.ves.values():
        total = quota.added(total, quota.of_ve(held.value))
    assert view.amounts.get("default", quota.NOTHING) == total
    assert bool(view.amounts) == bool(view.ves)


@given(
    limit=st.integers(1, 12),
    moves=st.lists(
        st.tuples(st.sampled_from(("begin", "done", "lost")), st.integers(0, 5)), max_size=40
    ),
)
def test_no_interleaving_of_writes_passes_a_quota(limit, moves) -> None:
    """Writes begin, take effect or fail in any order; between what is decided and what is seen is always what is held."""
    view, reserved = View(), Reserved(ManualClock())
    project = Project(
        name="default", created_at=1.0, quota=ProjectAmounts(memory_bytes=limit * GIB)
    )
    view.projects["default"] = Held(project, 1, 1)
    under_way: list[tuple[ExitStack, VE]] = []
    made = 0
    for what, number in moves:
        if what == "begin":
            ve = ve_with(f"v{made}", number or 1)
            made += 1
            try:
                hold = allowance.allowed(view, reserved, "default", quota.of_ve(ve))
            except Conflict:
                continue
            stack = ExitStack()
            stack.enter_context(hold)
            under_way.append((stack, ve))
        elif under_way:
            stack, ve = under_way.pop(number % len(under_way))
            if what == "done":
                put(view, ve)
                stack.close()
            else:
                error = Conflict("lost", hint="")
                stack.__exit__(Conflict, error, None)
        used = view.amounts.get("default", quota.NOTHING).memory_bytes
        coming = sum(ve.spec.memory_bytes for _, ve in under_way)
        assert used + coming <= limit * GIB
        assert reserved.asked("default").memory_bytes == coming
