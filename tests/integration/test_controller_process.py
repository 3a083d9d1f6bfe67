"""The program itself: starts with an etcd of its own, answers, ends cleanly, and comes back after a kill."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from kit.certs import issue, make_ca
from veapi.channel import controller_name, open_channel
from veapi.v1 import api_pb2, api_pb2_grpc

PROGRAM = Path(sys.executable).parent / "vecontroller"
CONFIG = """
name = "c1"
cluster = "rack"
data = "{folder}/data"
listen = ["127.0.0.1:{port}", "unix:{folder}/c.sock"]
address = "127.0.0.1:{port}"
{metrics}
[tls]
ca = "{ca}"
cert = "{cert}"
key = "{key}"
[etcd]
embedded = true
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Setup:
    """A folder with certificates and a configuration."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        ca = make_ca(folder / "ca", "rack")
        identity = issue(ca, "controller.rack")
        self.user = issue(ca, "ann.user.rack")
        self.config = folder / "controller.toml"
        self.text = CONFIG.format(
            folder=folder,
            port=self.port,
            metrics="",
            ca=identity.ca,
            cert=identity.cert,
            key=identity.key,
        )
        self.config.write_text(self.text)
        self.log = folder / "log"

    @contextmanager
    def running(self):
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [PROGRAM, "run", "--config", self.config], stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(20)

    def run(self, *arguments):
        return subprocess.run(
            [PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    async def created_project(self, name):
        """Whether a user can change something."""
        server = controller_name("rack")
        target = f"unix:{self.folder}/c.sock"
        async with open_channel(target, server=server, identity=self.user) as channel:
            try:
                request = api_pb2.CreateProjectRequest(name=name)
                await api_pb2_grpc.ProjectServiceStub(channel).Create(request, timeout=5)
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.FAILED_PRECONDITION
            return True

    def until(self, predicate, timeout_s=30.0):
        deadline = time.monotonic() + timeout_s
        while not predicate():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def terms(self):
        """How often it began to lead."""
        return len(re.findall(r"\bleading\b", self.log.read_text()))

    def etcd_pids(self):
        """Of living etcds of this folder."""
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if f"{self.folder}/data/etcd" in read(path)
        ]


def read(path):
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture
def setup(tmp_path):
    setup = Setup(tmp_path)
    yield setup
    for pid in setup.etcd_pids():
        os.kill(pid, signal.SIGKILL)


def test_it_leads_and_ends_on_sigterm_with_nothing_left(setup):
    with setup.running() as process:
        setup.until(lambda: setup.terms() == 1)
        assert (setup.folder / "c.sock").stat().st_mode & 0o777 == 0o600
        assert len(setup.etcd_pids()) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert setup.etcd_pids() == []
    assert not (setup.folder / "c.sock").exists()
    assert "leadership given up" in setup.log.read_text()
    assert "leadership lost" not in setup.log.read_text()


def test_after_a_kill_it_leads_again_with_the_same_etcd(setup):
    with setup.running() as process:
        setup.until(lambda: setup.terms() == 1)
        before = setup.etcd_pids()
        process.kill()
        process.wait(20)
    assert setup.etcd_pids() == before
    with setup.running():
        setup.until(lambda: setup.terms() == 2)
        assert setup.etcd_pids() == before
    assert setup.etcd_pids() == []


def test_it_goes_on_leading_when_its_etcd_is_killed(setup):
    with setup.running() as process:
        setup.until(lambda: setup.terms() == 1)
        (killed,) = setup.etcd_pids()
        os.kill(killed, signal.SIGKILL)
        setup.until(lambda: setup.etcd_pids() not in ([], [killed]))
        setup.until(lambda: asyncio.run(setup.created_project("after")))
        assert setup.terms() == 1
        assert process.poll() is None


def test_an_error_of_the_configuration_names_the_field_and_shows_no_traceback(setup):
    setup.config.write_text(setup.text.replace("[tls]", "[tls]\ncolour = 1"))
    done = setup.run("run", "--config", str(setup.config))
    assert done.returncode == 2
    assert "colour" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_configuration_is_a_sentence(setup):
    done = setup.run("run", "--config", str(setup.folder / "none.toml"))
    assert done.returncode == 2
    assert "none.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken_is_a_sentence_and_starts_no_etcd_for_long(setup):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", setup.port))
        taken.listen()
        done = setup.run("run", "--config", str(setup.config))
    assert done.returncode == 8
    assert f"can't listen on 127.0.0.1:{setup.port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert setup.etcd_pids() == []


def test_a_second_controller_on_the_same_data_is_refused(setup):
    with setup.running():
        setup.until(lambda: setup.terms() == 1)
        done = setup.run("run", "--config", str(setup.config))
        assert done.returncode == 4
        assert "another controller uses" in done.stderr
        assert len(setup.etcd_pids()) == 1


def test_help_names_all_commands(setup):
    done = setup.run("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("run", "init", "cert"))
