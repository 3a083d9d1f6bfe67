"""Which machine may serve as a host."""

import pytest

from kit.world import make_facts
from veapi.errors import Denied
from veapi.model import HostName, HostSpec
from vecontroller.admission import Machine, admitted

H1 = HostName("h1")
SPEC = HostSpec(taints=("gpu",))
A1, A2, B1 = Machine("a", "boot1"), Machine("a", "boot2"), Machine("b", "boot9")
KNOWN = make_facts(machine_id="a", boot_id="boot1")


def test_a_host_that_nobody_knows_is_let_in() -> None:
    assert admitted(H1, HostSpec(), None, A1, None) == HostSpec()


def test_an_agent_that_dials_again_is_let_in_while_it_is_heard() -> None:
    assert admitted(H1, SPEC, KNOWN, A1, A1) == SPEC


def test_hosts_of_one_kernel_are_told_apart_by_their_ids() -> None:
    with pytest.raises(Denied, match="is running"):
        admitted(H1, SPEC, None, Machine("b", "boot1"), A1)


@pytest.mark.parametrize("comes", [A2, B1])
def test_no_other_boot_or_machine_gets_in_while_one_is_heard(comes: Machine) -> None:
    with pytest.raises(Denied) as refused:
        admitted(H1, SPEC, KNOWN, comes, A1)
    assert "boot1" in refused.value.message
    assert comes.boot_id in refused.value.message


def test_a_host_that_rebooted_gets_in_once_the_old_one_is_not_heard() -> None:
    assert admitted(H1, SPEC, KNOWN, A2, None) == SPEC


def test_another_machine_than_the_known_one_gets_in_only_when_it_is_to_be_replaced() -> None:
    with pytest.raises(Denied, match="another machine") as refused:
        admitted(H1, SPEC, KNOWN, B1, None)
    assert "vectl host replace h1" in refused.value.hint
    replaced = HostSpec(taints=("gpu",), replaced=True)
    assert admitted(H1, replaced, KNOWN, B1, None) == SPEC


def test_the_word_that_another_machine_may_come_ends_when_the_old_one_is_heard_again() -> None:
    """It runs VEs from then on, which the other one would run too."""
    for word in (HostSpec(replaced=True), HostSpec(replaced=True, powered_off_at=1.0)):
        after = admitted(H1, word, KNOWN, A2, None)
        with pytest.raises(Denied, match="another machine"):
            admitted(H1, after, KNOWN, B1, None)


def test_an_agent_that_tells_no_id_is_taken_for_the_known_machine() -> None:
    assert admitted(H1, SPEC, KNOWN, Machine("", "boot2"), None) == SPEC


def test_a_host_that_was_removed_is_refused() -> None:
    with pytest.raises(Denied, match="was removed") as refused:
        admitted(H1, HostSpec(removed_at=1.0), None, A1, None)
    assert "vectl host add h1" in refused.value.hint


def test_the_word_that_a_host_is_off_ends_when_it_boots() -> None:
    off = HostSpec(powered_off_at=1.0, powered_off_by="ann")
    assert admitted(H1, off, KNOWN, A2, None) == HostSpec()


def test_a_host_that_ran_while_it_was_vouched_to_be_off_is_let_in_cordoned() -> None:
    off = HostSpec(powered_off_at=1.0, powered_off_by="ann")
    after = admitted(H1, off, KNOWN, A1, None)
    assert (after.powered_off_at, after.cordoned) == (None, True)
    assert after.cordon_reason == "it was vouched to be off while it ran by ann"
