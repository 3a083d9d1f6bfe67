"""Rates of VEs, on real links: what the kernel was told, what passes through it, and what is left after."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from kit import netns
from kit.netdriver import Refused
from kit.overlay import Guest, Overlay, OverlayHost, listening, overlay
from veapi.limits import MAX_NET_BPS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
GATEWAY = "10.66.0.1"


@pytest.fixture
def one() -> Iterator[Overlay]:
    with overlay(hosts=1) as made:
        made.setup_all()
        yield made


def buckets(host: OverlayHost) -> dict[str, tuple[int, int]]:
    """Bits a second and bytes sent of every token bucket, by device."""
    shown = json.loads(netns.run(host.namespace, "tc", "-s", "-j", "qdisc", "show").stdout)
    return {
        each["dev"]: (each["options"]["rate"] * 8, each["bytes"])
        for each in shown
        if each["kind"] == "tbf"
    }


def shapers(host: OverlayHost) -> list[str]:
    shown: list[dict[str, Any]] = json.loads(
        netns.run(host.namespace, "ip", "-j", "link", "show", "type", "ifb").stdout or "[]"
    )
    return [each["ifname"] for each in shown if each]


def rate(host: OverlayHost, guest: Guest, *, in_bps: int, out_bps: int) -> None:
    host.driver.call("rate", uid=guest.uid, in_bps=in_bps, out_bps=out_bps)


def test_both_directions_are_limited_and_still_pass(one: Overlay) -> None:
    host, guest = one.hosts[0], one.guest(one.hosts[0], "10.66.0.5")
    rate(host, guest, in_bps=20_000_000, out_bps=8_000_000)
    assert guest.pings(GATEWAY)
    found = buckets(host)
    shaper = "i" + guest.device[1:]
    assert {name: bps for name, (bps, _) in found.items()} == {
        guest.device: 20_000_000,
        shaper: 8_000_000,
    }
    assert all(sent >= 2 * 98 for _, sent in found.values()), "the echoes went both ways through"


def test_the_largest_rate_that_may_be_asked_for_can_be_set(one: Overlay) -> None:
    host, guest = one.hosts[0], one.guest(one.hosts[0], "10.66.0.5")
    rate(host, guest, in_bps=MAX_NET_BPS, out_bps=MAX_NET_BPS)
    assert {bps for bps, _ in buckets(host).values()} == {MAX_NET_BPS}
    assert guest.pings(GATEWAY)


def test_more_than_the_rate_is_dropped(one: Overlay) -> None:
    host, guest = one.hosts[0], one.guest(one.hosts[0], "10.66.0.5")
    rate(host, guest, in_bps=0, out_bps=64_000)
    guest.send(*[b"\xff" * 6 + bytes.fromhex("0200000000098888") + bytes(1400)] * 50)
    shown = json.loads(netns.run(host.namespace, "tc", "-s", "-j", "qdisc", "show").stdout)
    (bucket,) = [each for each in shown if each["kind"] == "tbf"]
    assert bucket["drops"] > 0


def test_rates_change_and_go_while_it_runs(one: Overlay) -> None:
    host, guest = one.hosts[0], one.guest(one.hosts[0], "10.66.0.5")
    rate(host, guest, in_bps=20_000_000, out_bps=8_000_000)
    rate(host, guest, in_bps=0, out_bps=9_000_000)
    assert {bps for bps, _ in buckets(host).values()} == {9_000_000}
    rate(host, guest, in_bps=0, out_bps=0)
    assert (buckets(host), shapers(host)) == ({}, [])
    assert guest.pings(GATEWAY)


def test_a_limited_ve_can_pretend_to_be_nobody_else(one: Overlay) -> None:
    host = one.hosts[0]
    guest, other = one.guest(host, "10.66.0.5"), one.guest(host, "10.66.0.6")
    rate(host, guest, in_bps=0, out_bps=8_000_000)
    target = bytes.fromhex(other.mac.replace(":", ""))
    source = bytes.fromhex(guest.mac.replace(":", ""))
    false = target + bytes.fromhex("020000000009") + b"\x88\xb5" + b"false"
    with listening(other.namespace, "eth0", b"\x08\x00") as seen:
        guest.send(false, target + source + b"\x88\xb5" + b"false")
        assert guest.pings(other.ip)
    assert not any(b"false" in each for each in seen)


def test_a_restart_of_the_ve_begins_without_limits_and_takes_them_again(one: Overlay) -> None:
    host, guest = one.hosts[0], one.guest(one.hosts[0], "10.66.0.5")
    rate(host, guest, in_bps=20_000_000, out_bps=8_000_000)
    netns.ip("-n", host.namespace, "link", "del", guest.device)
    one.start(guest, host)
    rate(host, guest, in_bps=20_000_000, out_bps=8_000_000)
    assert {bps for bps, _ in buckets(host).values()} == {20_000_000, 8_000_000}
    assert guest.pings(GATEWAY)


def test_nothing_is_left_of_a_ve_that_went(one: Overlay) -> None:
    host = one.hosts[0]
    gone, crashed = one.guest(host, "10.66.0.5"), one.guest(host, "10.66.0.6")
    for guest in (gone, crashed):
        rate(host, guest, in_bps=20_000_000, out_bps=8_000_000)
    one.unplug(gone, host)
    assert shapers(host) == ["i" + crashed.device[1:]]
    netns.ip("-n", host.namespace, "link", "del", crashed.device)
    host.driver.call("keep_only", uids=[])
    assert shapers(host) == []


def test_a_ve_without_a_card_is_refused(one: Overlay) -> None:
    host, guest = one.hosts[0], one.guest(one.hosts[0], "10.66.0.5")
    netns.ip("-n", host.namespace, "link", "del", guest.device)
    with pytest.raises(Refused, match="no network card"):
        rate(host, guest, in_bps=1_000_000, out_bps=0)
