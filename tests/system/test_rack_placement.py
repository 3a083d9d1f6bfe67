"""Placement over the hosts of the local rack: wishes, taints, explain, capacity, the queue and history, from vectl to the VE."""

import pytest

from kit.rack import Rack, until

SMALL = ("--image", "busybox", "--cpu", "0.1", "--memory", "32M", "--disk", "64M", "--pids", "64")


def racks(rack: Rack) -> dict[str, str]:
    hosts = rack.vectl("host", "list", "-o", "json").json()["items"]
    return {host["name"]: host["labels"]["rack"] for host in hosts}


def host_of(rack: Rack, name: str) -> str:
    host: str = rack.ve(name)["placement"]["host"]
    return host


@pytest.mark.timeout(300)
def test_ves_apart_over_racks_get_one_each_and_the_next_is_told_why(clean: Rack) -> None:
    of = racks(clean)
    count = len(set(of.values()))
    apart = ("--label", "app=web", "--apart", "app=web over rack")
    clean.vectl("create", "web", "--count", str(count), *SMALL, *apart)
    used = {of[host_of(clean, f"web-{index}")] for index in range(count)}
    assert used == set(of.values())
    refused = clean.vectl("create", "one-more", *SMALL, *apart, code=5)
    assert f"{len(of)} with app=web in their rack" in refused.err
    explained = clean.vectl("explain", "one-more", code=5).out
    assert "it would fit: allow 2 of app=web per rack, for all of them" in explained
    names = ["one-more", *(f"web-{index}" for index in range(count))]
    clean.vectl("set", *names, "--apart", "app=web over rack max 2", "--detach")
    until(
        lambda: clean.ve("one-more")["status"]["state"] == "Running",
        within_s=20,
        what="the VE that waited",
    )
    history = clean.vectl("history", "one-more").out
    assert "It had waited since" in history


@pytest.mark.timeout(300)
def test_a_tainted_host_is_left_alone_until_the_taint_goes(clean: Rack) -> None:
    hosts = sorted(racks(clean))
    for host in hosts:
        clean.vectl("host", "taint", host, "gpu=a100")
    try:
        refused = clean.vectl("create", "web", *SMALL, code=5)
        assert f"{len(hosts)} tainted `gpu=a100`" in refused.err
        assert clean.vectl("capacity", "-o", "json").json()["flavors"][0]["now"] == "0"
        clean.vectl("create", "train", *SMALL, "--tolerate", "gpu")
        assert host_of(clean, "train") in hosts
    finally:
        for host in hosts:
            clean.vectl("host", "taint", host, "gpu-")
    until(
        lambda: clean.ve("web")["status"]["state"] == "Running",
        within_s=20,
        what="web without taints",
    )
    assert clean.vectl("explain", "web").out.startswith("ve/web: on ")
    assert int(clean.vectl("capacity", "-o", "json").json()["flavors"][0]["now"]) > 0
