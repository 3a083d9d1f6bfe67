"""The agent as a process with its fake runtime, and what its tests do with it over a scripted controller."""

import asyncio
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kit.agenthost import BLOB, U1, entry, host_set
from kit.eventually import eventually
from kit.fakecontroller import FakeController, agent_config
from veapi.model import Uid, VEState
from veapi.v1 import session_pb2

MORTAL = ("setpriv", "--pdeathsig", "KILL")  # dies with the test run
PROGRAM = "from veagent.main import main; main()"


class Agent:
    """The program, started and killed by its test."""

    def __init__(self, config: Path, log: Path) -> None:
        self._config = config
        self._log = log
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        with self._log.open("ab") as log:
            argv = [sys.executable, "-c", PROGRAM, "--config", str(self._config)]
            self.process = await asyncio.create_subprocess_exec(*MORTAL, *argv, stderr=log)

    async def end(self, number: int = signal.SIGKILL) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()

    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def running_agent(
    tmp_path: Path, controller: FakeController, host: str = "h1"
) -> AsyncIterator[Agent]:
    sessions = len(controller.sessions)
    config = agent_config(tmp_path, controller, host)
    agent = Agent(config, tmp_path / f"{host}.log")
    await agent.start()
    try:
        await eventually(lambda: len(controller.sessions) > sessions)
        yield agent
    finally:
        await agent.end()


async def upload(controller: FakeController, blob: bytes = BLOB) -> list[session_pb2.RelayUp]:
    relay = controller.relay(session_pb2.RelayDown(upload=session_pb2.RelayUpload()))
    half = len(blob) // 2
    for piece in (blob[:half], blob[half:]):
        relay.down.put_nowait(session_pb2.RelayDown(chunk=piece))
    relay.down.put_nowait(session_pb2.RelayDown(end=True))
    await eventually(lambda: relay.frames("upload_done") or relay.frames("failure"))
    return relay.up


async def up(controller: FakeController, *uids: Uid) -> None:
    await upload(controller)
    controller.session.push(host_set(1, *(entry(uid) for uid in uids or (U1,))))
    await eventually(
        lambda: all(controller.session.state(u) is VEState.RUNNING for u in uids or (U1,))
    )


def page_of(url: str) -> str:
    """Waits for it: not for the thread of a loop."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        page: bytes = answer.read()
    return page.decode()
