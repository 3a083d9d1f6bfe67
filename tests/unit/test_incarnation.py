"""What an operator's word makes of a restored store."""

import msgspec

from kit.failing import H1, H2, U1, WALL, fencing_facts, lost_view, with_cluster
from kit.world import held
from veapi.model import FenceFacts, Timing
from vecontroller.failover.judge import Known, May, Waits, Why, judge
from vecontroller.incarnation import confirmed, is_confirmed
from vecontroller.view import View

KNOWN = Known(
    silent_s=lambda _: 100.0, live=lambda host: host != H1, wall=WALL, damped_s=lambda *_: 0.0
)


def confirmed_view() -> View:
    view = with_cluster(lost_view(), incarnation=2)
    view.cluster = held(confirmed(view))
    return view


def test_a_silent_host_of_a_restored_store_loses_no_ve_by_what_the_backup_says_of_its_fence() -> (
    None
):
    view = confirmed_view()
    assert view.cluster is not None
    assert is_confirmed(view.cluster.value)
    verdict = judge(view, U1, KNOWN)
    assert isinstance(verdict, Waits)
    assert verdict.why is Why.DISARMED
    fence = FenceFacts(live=True, timing=Timing(), arming=view.cluster.value.arming)
    view.hosts[H1] = held(fencing_facts(fence=fence))
    assert isinstance(judge(view, U1, KNOWN), May)


def test_no_host_has_said_the_count_before_that_it_is_to_confirm() -> None:
    view = lost_view()
    said = FenceFacts(live=True, timing=Timing(), arming=7)
    view.hosts[H2] = held(msgspec.structs.replace(view.hosts[H2].value, fence=said))
    assert confirmed(view).arming == 8
