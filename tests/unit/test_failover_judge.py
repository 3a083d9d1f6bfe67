"""Safety: a VE is never moved unless all conditions of the contract hold. Each is negated here, alone."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.failing import (
    H1,
    H2,
    H3,
    U1,
    WALL,
    armed,
    fenced_ve,
    fencing_facts,
    lost_view,
    with_cluster,
    with_policy,
)
from kit.world import held, make_placement
from veapi.model import FenceFacts, HostSpec, OnHostLoss, Run, Stay, Timing
from vecontroller.failover.brakes import damped_s
from vecontroller.failover.judge import Known, May, Waits, Why, judge

M = Timing().move_after_s
ARMED_FENCE = FenceFacts(live=True, timing=Timing())


def known(*, silent_s=M, live=(H2, H3), wall=WALL):
    return Known(
        silent_s=lambda host: silent_s if host == H1 else 0.0,
        live=lambda host: host in live,
        wall=wall,
        damped_s=damped_s,
    )


def test_a_ve_may_be_moved_when_all_is_as_it_must_be():
    view = lost_view()
    may = judge(view, U1, known())
    assert isinstance(may, May)
    assert may.ve is view.ves[U1]
    assert may.placement is view.placements[U1]
    assert may.status is view.statuses[U1]


def fence(**changes):
    facts = fencing_facts(fence=msgspec.structs.replace(ARMED_FENCE, **changes))
    return lost_view(hosts={H1: facts, H2: fencing_facts(), H3: fencing_facts()})


def moved_at(*times):
    stays = tuple(
        Stay(host=H2, generation=n, began_at=0.0, ended_at=at) for n, at in enumerate(times)
    )
    return lost_view(placements={"u1": make_placement("h1", past=stays)})


def unreadable():
    view = lost_view()
    view.quarantined["/verack/ve/left/h1/u1"] = 3
    return view


NEVER = [
    ("policy", lost_view(ves=[with_policy(fenced_ve(), OnHostLoss.STAY)]), Why.POLICY_STAY),
    ("deleting", lost_view(ves=[fenced_ve(delete_requested_at=1.0)]), Why.DELETING),
    ("run", lost_view(ves=[fenced_ve(run=Run.STOPPED)]), Why.STOPPED),
    ("never reported", lost_view(statuses={}), Why.NOT_ARMED),
    ("not armed", lost_view(statuses={"u1": armed(armed_generation=0)}), Why.NOT_ARMED),
    (
        "armed under an older policy",
        lost_view(ves=[fenced_ve(policy_generation=3)], statuses={"u1": armed(armed_generation=2)}),
        Why.NOT_ARMED,
    ),
    (
        "a policy of before generations",
        lost_view(ves=[fenced_ve(policy_generation=0)]),
        Why.NOT_ARMED,
    ),
    (
        "armed on an earlier placement",
        lost_view(placements={"u1": make_placement("h1", generation=2)}),
        Why.NOT_ARMED,
    ),
    (
        "armed on a later placement",
        lost_view(statuses={"u1": armed(placement_generation=2)}),
        Why.NOT_ARMED,
    ),
    ("vefence dead", fence(live=False), Why.NO_FENCE),
    ("no times", fence(timing=None), Why.OTHER_TIMES),
    ("other times", fence(timing=Timing(fence_after_s=20.0)), Why.OTHER_TIMES),
    ("other arming", fence(arming=1), Why.DISARMED),
    ("armed again, unconfirmed", with_cluster(lost_view(), arming=1), Why.DISARMED),
    ("disarmed", with_cluster(lost_view(), disarmed_until=WALL + 60), Why.DISARMED),
    ("restored, unconfirmed", with_cluster(lost_view(), incarnation=2), Why.UNCONFIRMED),
    ("moves stopped", with_cluster(lost_view(), moves_stopped="storm"), Why.MOVES_STOPPED),
    ("host unknown", lost_view(hosts={H2: fencing_facts()}), Why.NO_FENCE),
    (
        "no image",
        lost_view(hosts={H1: fencing_facts(), H2: fencing_facts(images=False)}),
        Why.NO_IMAGE,
    ),
    ("moved often", moved_at(WALL - 100, WALL - 10), Why.DAMPED),
    ("unreadable", unreadable(), Why.UNREADABLE),
]


@pytest.mark.parametrize(("view", "why"), [each[1:] for each in NEVER], ids=[e[0] for e in NEVER])
def test_never_moved_unless(view, why):
    verdict = judge(view, U1, known())
    assert isinstance(verdict, Waits)
    assert verdict.why is why
    assert verdict.message


def test_of_a_disarmed_cluster_that_is_told_and_not_that_its_hosts_arm_nothing():
    view = lost_view(statuses={"u1": armed(armed_generation=0)})
    found = judge(with_cluster(view, disarmed_until=WALL + 60), U1, known())
    assert isinstance(found, Waits)
    assert found.why is Why.DISARMED


def test_never_moved_while_the_silence_is_too_short():
    verdict = judge(lost_view(), U1, known(silent_s=M - 2.5))
    assert isinstance(verdict, Waits)
    assert (verdict.why, verdict.seconds) == (Why.SILENCE, 2.5)


def test_never_moved_while_only_silent_hosts_hold_its_image():
    verdict = judge(lost_view(), U1, known(live=()))
    assert isinstance(verdict, Waits)
    assert verdict.why is Why.NO_IMAGE


@pytest.mark.parametrize(
    "view",
    [lost_view(statuses={}), fence(live=False), fence(timing=None)],
    ids=["never reported", "vefence dead", "no times"],
)
def test_a_host_that_is_vouched_to_be_off_needs_to_have_confirmed_nothing(view):
    view.host_specs[H1] = held(HostSpec(powered_off_at=WALL))
    assert isinstance(judge(view, U1, known(silent_s=0.0)), May)


@pytest.mark.parametrize(
    "view",
    [
        lost_view(ves=[with_policy(fenced_ve(), OnHostLoss.STAY)]),
        with_cluster(lost_view(), moves_stopped="storm"),
        lost_view(ves=[fenced_ve(delete_requested_at=1.0)]),
    ],
    ids=["stay", "moves stopped", "deleting"],
)
def test_not_even_from_a_host_that_is_off(view):
    view.host_specs[H1] = held(HostSpec(powered_off_at=WALL))
    assert isinstance(judge(view, U1, known()), Waits)


@given(
    policy_generation=st.integers(0, 4),
    armed_generation=st.integers(0, 4),
    placed=st.integers(1, 3),
    seen=st.integers(1, 3),
    live=st.booleans(),
    arming=st.integers(0, 2),
    cluster_arming=st.integers(0, 2),
    silent_s=st.sampled_from([0.0, M - 0.01, M, M + 100]),
)
def test_safety_whatever_is_moved_was_armed_as_it_is_now(
    policy_generation, armed_generation, placed, seen, live, arming, cluster_arming, silent_s
):
    facts = fencing_facts(fence=FenceFacts(live=live, timing=Timing(), arming=arming))
    view = lost_view(
        ves=[fenced_ve(policy_generation=policy_generation)],
        placements={"u1": make_placement("h1", generation=placed)},
        statuses={"u1": armed(placement_generation=seen, armed_generation=armed_generation)},
        hosts={H1: facts, H2: fencing_facts(), H3: fencing_facts()},
    )
    with_cluster(view, arming=cluster_arming)
    verdict = judge(view, U1, known(silent_s=silent_s))
    safe = (
        armed_generation >= policy_generation > 0
        and placed == seen
        and live
        and arming == cluster_arming
        and silent_s >= M
    )
    assert isinstance(verdict, May) is safe
