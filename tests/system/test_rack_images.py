"""Images on a rack of four: pulled from a registry, kept on three hosts, fetched where needed, and let go again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devrack import network
from devrack.plan import HostPlan
from devrack.up import make_image
from kit.oci import Layout
from kit.rack import Rack, running_rack, until
from kit.storage import Member, folder, tar_of

HOSTS = [HostPlan(f"h{n}", "r1" if n < 3 else "r2", n) for n in range(1, 5)]
TESTS = Path(__file__).resolve().parents[1]
KEEP = '\n[images]\nkeep = "1s"\n'


@pytest.fixture(scope="module")
def rack() -> Iterator[Rack]:
    with running_rack("i", hosts=HOSTS) as made:
        until(lambda: ready(made) == {host.name for host in HOSTS}, within_s=60, what="four hosts")
        yield made


def ready(rack: Rack) -> set[str]:
    hosts = rack.vectl("host", "list", "-o", "json").json()["items"]
    return {host["name"] for host in hosts if host["state"] == "Ready"}


def layout_of(rack: Rack, place: Path, greeting: str) -> tuple[Path, str]:
    """busybox below, a page above; it serves that page as a user of its own."""
    below = make_image(rack.plan).read_bytes()
    above = tar_of(
        (
            folder("srv"),
            folder("srv/pages"),
            Member("srv/pages/index.html", f"{greeting}\n".encode()),
            Member("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:1234:1234::/srv:/bin/sh\n"),
            Member("sbin/.wh.init"),
        )
    )
    run = {
        "Entrypoint": ["/bin/sh", "-c", 'echo "$GREETING"; exec /bin/httpd -f -p 8080 -h "$0"'],
        "Cmd": ["/srv/pages"],
        "Env": [f"GREETING={greeting} $HOME"],
        "User": "web",
        "WorkingDir": "/srv",
    }
    layout = Layout()
    digest = layout.add_image([below, above], run=run)
    return layout.write(place), digest


@contextmanager
def registry_of(rack: Rack, layout: Path) -> Iterator[str]:
    """Its address, at the switch between the hosts."""
    told = layout.with_suffix(".address")
    told.unlink(missing_ok=True)
    net = network.NETNS / rack.plan.switch
    process = subprocess.Popen(
        [
            *("nsenter", f"--net={net}", "setpriv", "--pdeathsig", "KILL"),
            *(sys.executable, "-m", "kit.oci", str(layout), str(told)),
            rack.plan.controller_address,
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    try:
        until(told.exists, within_s=20, what="the registry listens")
        yield told.read_text()
    finally:
        process.kill()
        process.wait()


def shown(rack: Rack, image: str) -> dict:
    found = rack.vectl("image", "show", image, "-o", "json").json()
    assert isinstance(found, dict)
    return found


def hosts_of(rack: Rack, image: str) -> set[str]:
    return set(shown(rack, image).get("hosts", []))


@pytest.fixture(scope="module")
def app(rack, tmp_path_factory) -> str:
    """The digest of an image that was pulled as app:1."""
    layout, digest = layout_of(rack, tmp_path_factory.mktemp("oci") / "app", "hello")
    with registry_of(rack, layout) as address:
        refused = rack.vectl("image", "pull", f"docker://{address}/team/app:1", code=None)
        assert refused.code != 0
        assert "--insecure" in refused.err
        pulled = rack.vectl("image", "pull", f"docker://{address}/team/app:1", "--insecure")
    assert "image/app:1 pulled" in pulled.out
    assert "pulling" in pulled.err
    return digest


def test_a_pulled_image_is_known_by_its_manifest_and_tells_what_it_runs(rack, app):
    assert shown(rack, "app:1")["digest"] == app
    text = rack.vectl("image", "show", "app:1").out
    assert "httpd" in text
    assert "web" in text
    assert "GREETING=hello $HOME" in text


def test_it_is_kept_on_three_of_four_hosts(rack, app):
    wanted = set(shown(rack, "app:1")["wanted_on"])
    assert len(wanted) == 3
    until(lambda: hosts_of(rack, "app:1") >= wanted, within_s=60, what="replicated")


def test_a_ve_of_it_runs_on_a_host_that_had_to_fetch_it(rack, app):
    idle = ({host.name for host in HOSTS} - set(shown(rack, "app:1")["wanted_on"])).pop()
    rack.vectl("create", "web", "--image", "app:1", "--memory", "64M", "--host", idle)
    rack.vectl("create", "asker", "--image", "busybox", "--memory", "64M")
    assert idle in hosts_of(rack, "app:1")
    ip = rack.ve("web")["status"]["addresses"][0]
    line = f"for i in 1 2 3 4 5; do wget -qO- http://{ip}:8080/ && exit; sleep 0.2; done; exit 1"
    assert rack.vectl("exec", "asker", "--", "sh", "-c", line).out == "hello\n"
    assert "hello $HOME" in rack.vectl("logs", "web").out
    init = rack.vectl("exec", "web", "--", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; pwd").out
    assert init.startswith("/bin/httpd -f -p 8080 -h /srv/pages")
    owner = rack.vectl("exec", "web", "--", "stat", "-c", "%u:%g", "/proc/1").out
    assert owner == "1234:1234\n"
    rack.vectl("stop", "web")
    rack.vectl("start", "web")


def test_an_oci_folder_is_imported_as_it_was_pulled(rack, app, tmp_path):
    layout, digest = layout_of(rack, tmp_path / "same", "hello")
    assert digest == app
    done = rack.vectl("image", "import", "again", str(layout))
    assert digest in done.out
    assert shown(rack, "app:1")["tags"] == ["again", "app:1"]
    rack.vectl("image", "delete", "again")


def test_prefetch_brings_it_to_hosts_by_label_and_by_name_and_says_so(rack, tmp_path):
    layout, _ = layout_of(rack, tmp_path / "other", "other")
    rack.vectl("image", "import", "other", str(layout))
    idle = ({host.name for host in HOSTS} - set(shown(rack, "other")["wanted_on"])).pop()
    assert idle in rack.vectl("image", "prefetch", "other", "--hosts", idle).out
    until(lambda: idle in hosts_of(rack, "other"), within_s=30, what="prefetched")
    assert idle in rack.vectl("image", "show", "other").out
    rack.vectl("image", "prefetch", "other", "-l", "rack=r9")
    assert idle not in shown(rack, "other")["wanted_on"]
    rack.vectl("image", "prefetch", "other", "--off")
    for bad in (["--hosts", "h9"], ["-l", "a=b=c"], ["--off", "-l", "rack"], []):
        refused = rack.vectl("image", "prefetch", "other", *bad, code=None)
        assert refused.code != 0
        assert "Hint" in refused.err


def test_hosts_let_go_what_is_spare_and_what_was_deleted_but_nothing_that_is_used(rack, app):
    """After the others: it makes the hosts keep spare images for a second only."""
    for host in HOSTS:
        config = rack.plan.host_state(host) / "agent.toml"
        config.write_text(config.read_text() + KEEP)
        rack.kill(f"{host.name}-agent")
        rack.start_agent(host.name)
    kept = set(shown(rack, "app:1")["wanted_on"])
    assert len(kept) == 4  # three, and the one with the VE
    until(
        lambda: hosts_of(rack, "other") == set(shown(rack, "other")["wanted_on"]),
        within_s=90,
        what="the prefetched copy went",
    )
    assert len(hosts_of(rack, "other")) == 3
    assert hosts_of(rack, "app:1") == kept
    rack.vectl("delete", "web", "asker", "--yes", "--purge")
    rack.vectl("image", "delete", "other")
    rack.vectl("image", "delete", "app:1")
    until(
        lambda: [len(images_on(rack, host.name)) for host in HOSTS].count(1) == 3,
        within_s=90,
        what="only busybox is left, three times",
    )


def images_on(rack: Rack, host: str) -> list[str]:
    found = rack.vectl("host", "show", host, "-o", "json").json()
    return list(found.get("images", []))
