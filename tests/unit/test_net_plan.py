"""What the network part decides, without a kernel."""

from dataclasses import replace
from pathlib import Path

import pytest

from veagent.net import filters
from veagent.net.counters import read_counters
from veagent.net.layout import Layout, card, device_name, layout
from veagent.net.settings import NetSettings
from veagent.net.wiring import (
    AddAddress,
    AddVxlan,
    DeleteAddress,
    DeleteLink,
    Flood,
    Forget,
    SetLink,
    Vxlan,
    Wiring,
    another_network,
    plan,
    wanted,
)
from veapi.errors import InvalidInput
from veapi.model import Network, PeerHost, Uid

SETTINGS = NetSettings("10.88.0.11")
PEERS = [PeerHost(name="h2", address="10.88.0.12"), PeerHost(name="h3", address="10.88.0.13")]
UID = Uid("0123abcd-4567-89ab-cdef-000000000001")


def laid_out(**network: object) -> Layout:
    return layout(SETTINGS, Network(**network), PEERS)  # type: ignore[arg-type]


WANTED = wanted(SETTINGS, laid_out())
NOTHING = Wiring(bridge=None, vxlan=None, sysctls={})


def vxlan(**changes: object) -> Vxlan:
    assert WANTED.vxlan is not None
    return replace(WANTED.vxlan, **changes)  # type: ignore[arg-type]


def test_what_is_as_wanted_needs_no_step() -> None:
    assert plan(SETTINGS, WANTED, WANTED) == ()


def test_links_come_up_last_so_that_nothing_passes_half_a_wiring() -> None:
    steps = plan(SETTINGS, NOTHING, WANTED)
    assert steps[-2:] == (SetLink("vebr0", up=True), SetLink("vevx0", up=True))
    assert Flood("vevx0", "10.88.0.12") in steps
    assert AddAddress("vebr0", "10.66.0.1/16") in steps


def test_a_peer_that_left_is_forgotten_and_a_new_one_flooded() -> None:
    known = frozenset({"10.88.0.12", "10.88.0.99"})
    found = replace(WANTED, vxlan=vxlan(flood=known, towards=known | {"10.88.0.98"}))
    assert plan(SETTINGS, found, WANTED) == (
        Forget("vevx0", "10.88.0.98"),
        Forget("vevx0", "10.88.0.99"),
        Flood("vevx0", "10.88.0.13"),
    )


def test_a_host_with_a_new_address_gets_a_new_tunnel_but_keeps_its_bridge() -> None:
    found = replace(WANTED, vxlan=vxlan(local="10.88.0.77"))
    steps = plan(SETTINGS, found, WANTED)
    assert steps[0] == DeleteLink("vevx0")
    assert isinstance(steps[1], AddVxlan)
    assert SetLink("vevx0", up=True) in steps
    assert not any("vebr0" in str(step) and "SetLink(link='vebr0'" in str(step) for step in steps)
    assert another_network(found, WANTED) == ""


def test_a_network_of_other_address_or_tunnel_is_another_one() -> None:
    for changes in (
        {"gateway": "10.66.0.2"},
        {"gateway_mac": "02:00:5e:00:53:02"},
        {"vxlan_id": 78},
        {"vxlan_port": 4790},
    ):
        assert another_network(WANTED, wanted(SETTINGS, laid_out(**changes)))
    assert another_network(NOTHING, WANTED) == ""


def test_another_gateway_takes_the_place_of_the_old_one() -> None:
    steps = plan(SETTINGS, WANTED, wanted(SETTINGS, laid_out(gateway="10.66.0.2")))
    assert steps == (
        DeleteAddress("vebr0", "10.66.0.1/16"),
        AddAddress("vebr0", "10.66.0.2/16"),
    )


@pytest.mark.parametrize(
    "network",
    [
        {"cidr": "10.66.0.0"},
        {"cidr": "10.66.0.1/16"},
        {"cidr": "fd00::/64"},
        {"gateway": "10.67.0.1"},
        {"gateway": "10.66.0.1; flush ruleset"},
        {"gateway_mac": "01:00:5e:00:53:01"},
        {"gateway_mac": '02:00:5e:00:53:01" }'},
        {"vxlan_id": 0},
        {"vxlan_port": 1 << 16},
    ],
)
def test_a_network_that_is_none_is_refused(network: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        laid_out(**network)


@pytest.mark.parametrize(
    ("uid", "ip", "mac"),
    [
        ("../../etc", "10.66.0.5", "02:00:00:00:00:05"),
        (UID, "10.67.0.5", "02:00:00:00:00:05"),
        (UID, "10.66.0.1", "02:00:00:00:00:05"),
        (UID, "10.66.255.255", "02:00:00:00:00:05"),
        (UID, "10.66.0.5 }", "02:00:00:00:00:05"),
        (UID, "10.66.0.5", "02:00:5e:00:53:01"),
        (UID, "10.66.0.5", "02:00:00:00:05"),
    ],
)
def test_a_card_that_the_network_can_not_give_is_refused(uid: str, ip: str, mac: str) -> None:
    with pytest.raises(InvalidInput):
        card(laid_out(), Uid(uid), ip, mac)


@pytest.mark.parametrize("name", ["", "a" * 16, "br 0", 'x"', "../lo", "1br"])
def test_a_link_name_that_could_break_out_of_a_rule_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="bridge"):
        NetSettings("10.88.0.11", bridge=name)


def test_devices_are_named_by_uid_and_matched_by_the_filter() -> None:
    assert device_name(UID) == "v0123abcd4567"
    (bridge, *_) = filters.tables(SETTINGS, laid_out())
    for digit in "0123456789abcdf":
        assert f'iifname "v{digit}*" counter drop' in bridge.body
    for digit in "0123456789abcdef":
        assert f'iifname "ve{digit}*" counter drop' in bridge.body
    assert '"ve*"' not in bridge.body  # veth0 and vebr0 are not VEs'


def test_rules_that_differ_have_another_mark() -> None:
    one, other = laid_out(), replace(laid_out(), peers=frozenset())
    before = {table.name: table.mark for table in filters.tables(SETTINGS, one)}
    after = {table.name: table.mark for table in filters.tables(SETTINGS, other)}
    assert {name for name in before if before[name] != after[name]} == {filters.HOST}


def test_counters_are_turned_to_the_ves_side(tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    dev.write_text(
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n"
        "v0123abcd4567: 11 12 13 14 0 0 0 0 21 22 23 24 0 0 0 0\n"
    )
    counters = read_counters(dev)["v0123abcd4567"]
    assert (counters.transmit.bytes, counters.transmit.drops) == (11, 14)
    assert (counters.receive.bytes, counters.receive.packets) == (21, 22)
