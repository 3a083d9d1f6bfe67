"""The overlay between hosts, on real links: what VEs reach, what they can't fake, what a change of peers does."""

import os
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from kit import netns
from kit.netdriver import Refused, host_driver
from kit.overlay import OUTSIDE, Guest, Overlay, OverlayHost, listening, overlay

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
GATEWAY = "10.66.0.1"
GATEWAY_MAC = "02:00:5e:00:53:01"


@pytest.fixture
def two() -> Iterator[Overlay]:
    with overlay(hosts=2) as made:
        made.setup_all()
        yield made
    assert netns.ours() == set()


def rules(host: OverlayHost) -> str:
    return netns.run(host.namespace, "nft", "-a", "list", "ruleset").stdout


def handles(host: OverlayHost) -> str:
    """The rules with their handles, which change when one is made anew, without what they counted."""
    return netns.run(host.namespace, "nft", "-s", "-a", "list", "ruleset").stdout


def flooded(host: OverlayHost) -> set[str]:
    lines = netns.run(host.namespace, "bridge", "fdb", "show", "dev", "vevx0").stdout.splitlines()
    return {line.split()[2] for line in lines if line.startswith("00:00:00:00:00:00")}


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def udp(source: Guest, target: Guest, payload: bytes, *, from_mac: str, from_ip: str) -> bytes:
    """An Ethernet frame of a datagram from any address that one likes."""
    data = struct.pack("!HHHH", 1000, 2000, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton(from_ip) + socket.inet_aton(target.ip)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    checksum = ~(total + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack("!H", checksum) + header[12:]
    return mac(target.mac) + mac(from_mac) + b"\x08\x00" + header + data


def arp(*, from_mac: str, says_mac: str, says_ip: str, asks: str, to: str = "") -> bytes:
    """A gratuitous-looking ARP reply, or a request when `to` is empty."""
    operation = 2 if to else 1
    target = mac(to) if to else b"\xff" * 6
    head = target + mac(from_mac) + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, operation)
    who = mac(says_mac) + socket.inet_aton(says_ip)
    return head + who + (mac(to) if to else bytes(6)) + socket.inet_aton(asks)


def arriving(sender: Guest, receiver: Guest, frames: list[bytes]) -> list[bytes]:
    """Which of `frames` come through; an honest datagram after them tells when to stop."""
    end = udp(sender, receiver, b"the-end", from_mac=sender.mac, from_ip=sender.ip)
    with listening(receiver.namespace, "eth0", b"the-end") as seen:
        sender.send(*frames, end)
    return [frame for frame in frames if any(each.startswith(frame) for each in seen)]


def test_ves_on_two_hosts_reach_each_other(two: Overlay) -> None:
    one = two.guest(two.hosts[0], "10.66.0.5")
    other = two.guest(two.hosts[1], "10.66.0.6")
    assert one.pings(other.ip)
    assert other.pings(one.ip)


def test_full_frames_pass_the_overlay_unbroken(two: Overlay) -> None:
    one = two.guest(two.hosts[0], "10.66.0.5")
    two.guest(two.hosts[1], "10.66.0.6")
    assert one.pings("10.66.0.6", "-M", "do", "-s", str(1450 - 28))


def test_ves_on_one_host_reach_each_other(two: Overlay) -> None:
    one = two.guest(two.hosts[0], "10.66.0.5")
    two.guest(two.hosts[0], "10.66.1.6")
    assert one.pings("10.66.1.6")


def test_a_ve_reaches_what_its_host_reaches_with_the_hosts_address(two: Overlay) -> None:
    guest = two.guest(two.hosts[0], "10.66.0.5")
    assert guest.pings(OUTSIDE)  # nobody outside has a route to 10.66.0.0/16


def test_each_host_answers_for_the_gateway_itself(two: Overlay) -> None:
    first, second = two.hosts
    one, other = two.guest(first, "10.66.0.5"), two.guest(second, "10.66.0.6")
    netns.ip("-n", second.namespace, "link", "set", "up0", "down")
    assert one.pings(GATEWAY)
    assert other.pings(GATEWAY)
    for guest in (one, other):
        shown = netns.run(guest.namespace, "ip", "neigh", "show", GATEWAY).stdout
        assert GATEWAY_MAC in shown


def test_the_gateway_is_not_seen_across_the_overlay(two: Overlay) -> None:
    first, second = two.hosts
    one, here = two.guest(first, "10.66.0.5"), two.guest(first, "10.66.0.7")
    other = two.guest(second, "10.66.0.6")
    ask = arp(from_mac=one.mac, says_mac=one.mac, says_ip=one.ip, asks=GATEWAY)
    assert arriving(one, here, [ask]) == [ask]
    end = udp(one, other, b"the-end", from_mac=one.mac, from_ip=one.ip)
    with listening(second.namespace, "vevx0", b"the-end") as seen:
        one.send(ask, end)
    assert not any(frame.startswith(ask) for frame in seen)


def test_a_gateway_that_a_broken_peer_lets_through_is_dropped_on_arrival(two: Overlay) -> None:
    first, second = two.hosts
    one, other = two.guest(first, "10.66.0.5"), two.guest(second, "10.66.0.6")
    netns.run(first.namespace, "nft", "delete", "table", "bridge", "verack")
    fakes = [
        arp(from_mac=one.mac, says_mac=one.mac, says_ip=GATEWAY, asks=other.ip, to=other.mac),
        arp(from_mac=one.mac, says_mac=one.mac, says_ip=one.ip, asks=GATEWAY),
        udp(one, other, b"gateway", from_mac=GATEWAY_MAC, from_ip=one.ip),
    ]
    assert arriving(one, other, fakes) == []


def test_spoofed_frames_are_dropped_at_the_device(two: Overlay) -> None:
    one, other = two.guest(two.hosts[0], "10.66.0.5"), two.guest(two.hosts[0], "10.66.0.6")
    fakes = [
        udp(one, other, b"ip", from_mac=one.mac, from_ip="10.66.0.9"),
        udp(one, other, b"mac", from_mac="02:00:00:00:00:09", from_ip=one.ip),
        udp(one, other, b"gateway", from_mac=GATEWAY_MAC, from_ip=GATEWAY),
        arp(from_mac=one.mac, says_mac=one.mac, says_ip=GATEWAY, asks=other.ip, to=other.mac),
        arp(from_mac=one.mac, says_mac=GATEWAY_MAC, says_ip=one.ip, asks=other.ip, to=other.mac),
        arp(from_mac=GATEWAY_MAC, says_mac=one.mac, says_ip=one.ip, asks=other.ip, to=other.mac),
        mac(other.mac) + mac(one.mac) + b"\x86\xdd" + bytes(60),  # IPv6
        mac(other.mac) + mac(one.mac) + b"\x81\x00\x00\x05\x08\x00" + bytes(60),  # VLAN
    ]
    honest = arp(from_mac=one.mac, says_mac=one.mac, says_ip=one.ip, asks=other.ip, to=other.mac)
    assert arriving(one, other, [*fakes, honest]) == [honest]


def test_a_detached_ve_is_silent(two: Overlay) -> None:
    host = two.hosts[0]
    one, other = two.guest(host, "10.66.0.5"), two.guest(host, "10.66.0.6")
    assert one.pings(other.ip)
    host.driver.call("keep_only", uids=[other.uid])
    assert not one.pings(other.ip)
    host.driver.call("attach", uid=one.uid, ip=one.ip, mac=one.mac)
    assert one.pings(other.ip)


def test_a_new_address_of_a_ve_replaces_the_old_one(two: Overlay) -> None:
    host = two.hosts[0]
    guest = two.guest(host, "10.66.0.5")
    host.driver.call("attach", uid=guest.uid, ip="10.66.0.8", mac=guest.mac)
    assert not guest.pings(GATEWAY)
    netns.ip("-n", guest.namespace, "addr", "add", "10.66.0.8/16", "dev", "eth0")
    assert guest.pings(GATEWAY, "-I", "10.66.0.8")


def test_a_ve_can_neither_open_veracks_ports_nor_forge_the_overlay(two: Overlay) -> None:
    first, second = two.hosts
    guest = two.guest(first, "10.66.0.5")
    for host in (first, second):
        assert connects(guest, host, 8080)
        assert not connects(guest, host, 7444)
    for host, device in ((first, "vebr0"), (second, "up0")):
        with listening(host.namespace, device, b"marked-as-last") as seen:
            datagram(guest, host.address, 4789, b"forged")
            datagram(guest, host.address, 4790, b"marked-as-last")
        forged = [each for each in seen if b"forged" in each]
        assert bool(forged) is (host is first)  # it comes to its own host's bridge, and no further
    assert "udp dport 4789 counter packets 1 bytes" in rules(first)


def connects(guest: Guest, host: OverlayHost, port: int) -> bool:
    code = (
        "import socket\n"
        f"s=socket.create_server(('{host.address}',{port})); print('ready',flush=True)\n"
        "s.settimeout(20); s.accept()"
    )
    try_it = f"import socket; socket.create_connection(('{host.address}',{port}),1)"
    with subprocess.Popen(
        netns.enter(host.namespace, ["/usr/bin/env", "python3", "-Ic", code]),
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            return netns.run(guest.namespace, "python3", "-Ic", try_it, check=False).returncode == 0
        finally:
            server.kill()


def datagram(guest: Guest, target: str, port: int, payload: bytes) -> None:
    code = (
        "import socket; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);"
        f"s.sendto({payload!r},('{target}',{port}))"
    )
    netns.run(guest.namespace, "python3", "-Ic", code)


def test_vxlan_from_a_stranger_is_refused(two: Overlay) -> None:
    host = two.hosts[0]
    guest = two.guest(host, "10.66.0.5")
    stranger = Guest(two.outside, OUTSIDE, "02:00:00:00:00:77")
    inner = udp(stranger, guest, b"forged", from_mac=stranger.mac, from_ip="10.66.0.66")
    packet = b"\x08\0\0\0" + (77).to_bytes(3, "big") + b"\0" + inner
    inside = two.guest(two.hosts[1], "10.66.0.6")
    end = udp(inside, guest, b"the-end", from_mac=inside.mac, from_ip=inside.ip)
    with listening(guest.namespace, "eth0", b"the-end") as seen:
        datagram(stranger, host.address, 4789, packet)
        inside.send(end)
    assert not [each for each in seen if b"forged" in each]
    assert "@peers counter packets 1 " in rules(host)


def test_a_moved_ve_is_reached_at_its_new_host_with_its_first_frame(two: Overlay) -> None:
    first, second = two.hosts
    mover, stayer = two.guest(first, "10.66.0.5"), two.guest(first, "10.66.0.6")
    remote = two.guest(second, "10.66.0.7")
    assert stayer.pings(mover.ip)
    assert remote.pings(mover.ip)
    two.unplug(mover, first)
    two.start(mover, second)
    mover.send(arp(from_mac=mover.mac, says_mac=mover.mac, says_ip=mover.ip, asks=mover.ip))
    assert stayer.pings(mover.ip)
    assert remote.pings(mover.ip)


def test_a_second_setup_changes_nothing(two: Overlay) -> None:
    host = two.hosts[0]
    guest = two.guest(host, "10.66.0.5")
    links = netns.run(host.namespace, "ip", "-o", "link").stdout
    before = handles(host)
    host.driver.setup(two.peers_of(host))
    assert handles(host) == before
    assert netns.run(host.namespace, "ip", "-o", "link").stdout == links
    assert guest.pings(GATEWAY)


def test_a_restarted_agent_takes_over_what_runs(two: Overlay) -> None:
    host = two.hosts[0]
    guest = two.guest(host, "10.66.0.5")
    before = handles(host)
    with host_driver(host.namespace, host.address) as again:
        again.setup(two.peers_of(host))
        assert handles(host) == before
        again.call("keep_only", uids=[])
    assert not guest.pings(GATEWAY)


def test_what_somebody_damaged_is_repaired(two: Overlay) -> None:
    host = two.hosts[0]
    guest, other = two.guest(host, "10.66.0.5"), two.guest(two.hosts[1], "10.66.0.6")
    before = {line for line in rules(host).splitlines() if "chain rules_" in line}
    netns.run(host.namespace, "nft", "flush", "ruleset")
    netns.ip("-n", host.namespace, "link", "del", "vevx0")
    netns.ip("-n", host.namespace, "addr", "flush", "dev", "vebr0")
    host.driver.setup(two.peers_of(host))
    after = {line.split(" {")[0] for line in rules(host).splitlines() if "chain rules_" in line}
    assert after == {line.split(" {")[0] for line in before}
    assert guest.pings(GATEWAY)
    assert guest.pings(other.ip)
    fake = udp(guest, other, b"ip", from_mac=guest.mac, from_ip="10.66.0.9")
    assert arriving(guest, other, [fake]) == []


def test_an_attach_repairs_a_flushed_filter(two: Overlay) -> None:
    host = two.hosts[0]
    guest = two.guest(host, "10.66.0.5")
    netns.run(host.namespace, "nft", "flush", "ruleset")
    two.guest(host, "10.66.0.6")
    assert f'"{guest.device}" . {guest.mac} . {guest.ip}' in rules(host)


def test_changed_peers_change_the_flood_entries_alone() -> None:
    with overlay(hosts=3) as made:
        made.setup_all()
        first, second, third = made.hosts
        one, other = made.guest(first, "10.66.0.5"), made.guest(second, "10.66.0.6")
        assert flooded(first) == {second.address, third.address}
        assert one.pings(other.ip)  # so that its host has learned entries too
        index = netns.run(first.namespace, "cat", "/proc/net/dev_mcast").stdout
        first.driver.setup({"h3": third.address})
        assert flooded(first) == {third.address}
        assert not one.pings(other.ip)
        first.driver.setup({"h2": second.address, "h3": third.address})
        assert flooded(first) == {second.address, third.address}
        assert one.pings(other.ip)
        assert netns.run(first.namespace, "cat", "/proc/net/dev_mcast").stdout == index


def test_another_network_is_refused_while_ves_run_on_it(two: Overlay) -> None:
    host = two.hosts[0]
    guest = two.guest(host, "10.66.0.5")
    other = {"cidr": "10.77.0.0/16", "gateway": "10.77.0.1", "vxlan_id": 78}
    with pytest.raises(Refused, match=r"10\.66\.0\.1/16, not 10\.77\.0\.1/16, and 1 VEs run on it"):
        host.driver.setup(two.peers_of(host), **other)
    assert guest.pings(GATEWAY)
    two.unplug(guest, host)
    two.setup_all(**other)
    moved, far = two.guest(host, "10.77.0.5"), two.guest(two.hosts[1], "10.77.0.6")
    assert moved.pings("10.77.0.1")
    assert moved.pings(far.ip)


def test_a_link_of_somebody_else_by_our_name_is_left_alone() -> None:
    with overlay(hosts=1) as made:
        host = made.hosts[0]
        netns.ip("-n", host.namespace, "link", "add", "vebr0", "type", "veth")
        with pytest.raises(Refused, match="link vebr0 is no bridge but veth"):
            made.setup_all()
        assert "verack" not in rules(host)


def test_a_setup_that_was_cut_half_way_is_completed() -> None:
    with overlay(hosts=2) as made:
        for host in made.hosts:
            netns.ip("-n", host.namespace, "link", "add", "vebr0", "type", "bridge")
            tunnel = ["id", "77", "dstport", "4789", "local", host.address]
            netns.ip("-n", host.namespace, "link", "add", "vevx0", "type", "vxlan", *tunnel)
            netns.run(host.namespace, "nft", "add", "table", "bridge", "verack")
        made.setup_all()
        one, other = made.guest(made.hosts[0], "10.66.0.5"), made.guest(made.hosts[1], "10.66.0.6")
        assert one.pings(other.ip)
        assert one.pings(GATEWAY)


def test_counters_are_the_ves_own_view(two: Overlay) -> None:
    guest = two.guest(two.hosts[0], "10.66.0.5")
    assert guest.pings(GATEWAY)
    mine = two.hosts[0].driver.call("counters")[guest.device]
    lines = netns.run(guest.namespace, "cat", "/proc/net/dev").stdout.splitlines()
    fields = next(line for line in lines if "eth0" in line).split(":")[1].split()
    assert mine["transmit"]["packets"] <= int(fields[9])
    assert mine["transmit"]["bytes"] >= 2 * 98
    assert mine["receive"]["packets"] >= 2
    assert mine["receive"]["bytes"] <= int(fields[0])


def test_teardown_leaves_nothing_of_ours(two: Overlay) -> None:
    host = two.hosts[0]
    two.guest(host, "10.66.0.5")
    host.driver.call("teardown")
    shown = netns.run(host.namespace, "ip", "-o", "link").stdout
    assert "vebr0:" not in shown
    assert "vevx0" not in shown
    assert "verack" not in rules(host)
    host.driver.call("teardown")


def test_an_attach_before_the_first_setup_says_so() -> None:
    with overlay(hosts=1) as made, pytest.raises(Refused, match="not set up yet"):
        made.guest(made.hosts[0], "10.66.0.5")
