"""Runs a host's network code in a namespace, driven from a test by lines of JSON: {"call": name, ...} → {"ok": …}.

`python -m kit.netdriver ADDRESS` serves until its standard input ends.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kit import netns
from veagent.net.network import HostNetwork
from veagent.net.settings import NetSettings
from veapi.clock import SystemClock
from veapi.errors import VerackError
from veapi.model import Network, PeerHost, Uid


class HostDriver:
    """The test's end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, name: str, **arguments: object) -> Any:
        """The answer; `Refused` when the network code raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": name, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["ok"]

    def setup(self, peers: dict[str, str], **network: object) -> None:
        self.call("setup", peers=peers, network=network)


class Refused(Exception):
    """The message of the error of verack."""


@contextmanager
def host_driver(namespace: str, address: str) -> Iterator[HostDriver]:
    """The network code of a host, running in its namespace."""
    process = subprocess.Popen(
        netns.enter(namespace, [sys.executable, "-m", "kit.netdriver", address]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    try:
        yield HostDriver(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait(10)


async def _call(network: HostNetwork, request: dict[str, Any]) -> Any:  # noqa: PLR0911
    match request.pop("call"):
        case "setup":
            peers = [PeerHost(name=k, address=v) for k, v in request["peers"].items()]
            return await network.setup(Network(**request["network"]), peers)
        case "attach":
            return asdict(await network.attach(Uid(request["uid"]), request["ip"], request["mac"]))
        case "rate":
            return await network.rate(
                Uid(request["uid"]), in_bps=request["in_bps"], out_bps=request["out_bps"]
            )
        case "detach":
            return await network.detach(Uid(request["uid"]))
        case "keep_only":
            return await network.keep_only([Uid(each) for each in request["uids"]])
        case "teardown":
            return await network.teardown()
        case "counters":
            return {name: asdict(each) for name, each in network.counters().items()}
        case other:
            raise AssertionError(other)


async def _serve(address: str) -> None:
    network = HostNetwork(NetSettings(address, recheck_s=0.0), SystemClock())
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                answer = {"ok": await _call(network, json.loads(line))}
            except VerackError as error:
                answer = {"refused": error.message}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        await network.aclose()


if __name__ == "__main__":
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_serve(sys.argv[1]))
