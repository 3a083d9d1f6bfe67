"""Consoles of real VEs: typed at, read, taken over, flooded."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.realves import Lab, lab
from veagent.consolelog import read_console
from veagent.consolemarks import read_marks, rotated
from veagent.ports import ExecCommand, ExecProcess, Instance
from veapi.errors import Conflict

pytestmark = pytest.mark.skipif(shutil.which("lxc-start") is None, reason="lxc is not installed")
FLOOD_BYTES = 6_000_000
LIMIT_BYTES = 1 << 20


@pytest.fixture
async def ves() -> AsyncIterator[Lab]:
    async with lab() as made:
        yield made


@pytest.fixture
async def instance(ves: Lab) -> Instance:
    return await ves.runtime.start(ves.plan())


async def text_until(process: ExecProcess, wanted: str) -> str:
    text = ""
    async for _, data in process.output():
        text += data.decode()
        if wanted in text:
            return text
    raise AssertionError(f"{wanted!r} did not come, but {text!r}")


async def begin(ves: Lab, instance: Instance, script: str) -> ExecProcess:
    return await ves.runtime.execute(instance, ExecCommand(["sh", "-c", script]))


async def attach(ves: Lab, instance: Instance) -> ExecProcess:
    return await ves.runtime.attach_console(instance, columns=101, rows=33)


async def test_a_console_shows_what_was_printed_takes_what_is_typed_and_has_our_size(
    ves: Lab, instance: Instance
) -> None:
    await eventually(lambda: "up" in ves.runtime.console(instance.uid).read_text())
    console = await attach(ves, instance)
    getty = await begin(
        ves,
        instance,
        "exec setsid sh -c 'exec <>/dev/console >&0 2>&0; read x; stty size; echo got $x'",
    )
    await console.write(b"hello\r")
    text = await text_until(console, "got hello")
    assert "ve: up" in text
    assert "33 101" in text
    await console.close()
    await getty.close()


async def test_only_one_can_be_at_a_console_and_the_next_one_comes_after(
    ves: Lab, instance: Instance
) -> None:
    first = await attach(ves, instance)
    with pytest.raises(Conflict) as refused:
        await attach(ves, instance)
    assert refused.value.hint
    await first.close()
    second = await attach(ves, instance)
    await second.close()
    await second.close()


async def test_a_console_ends_with_its_ve(ves: Lab, instance: Instance) -> None:
    console = await attach(ves, instance)
    reading = asyncio.create_task(text_until(console, "never"))
    await ves.runtime.stop(instance, timeout_s=0)
    with pytest.raises(AssertionError):
        await asyncio.wait_for(reading, 5)
    assert await console.exit_code() == 0
    await console.close()


async def test_who_does_not_read_a_console_holds_up_neither_its_ve_nor_the_news_of_its_end(
    ves: Lab, instance: Instance
) -> None:
    """The monitor of LXC blocks for ever when it is asked to copy a console that nobody reads."""
    console = await attach(ves, instance)
    flood = await begin(ves, instance, f"yes | head -c {FLOOD_BYTES} >/dev/console")
    assert await asyncio.wait_for(flood.exit_code(), 60) == 0
    await ves.runtime.stop(instance, timeout_s=0)
    await asyncio.wait_for(instance.ended(), 5)
    await console.close()


async def test_a_flooded_console_keeps_two_files_of_the_limit_and_who_follows_sees_its_end(
    ves: Lab, instance: Instance
) -> None:
    path = ves.runtime.console(instance.uid)
    seen = b""

    async def follow() -> None:
        nonlocal seen
        async for piece in read_console(path, follow=True):
            seen = (seen + piece)[-100:]

    following = asyncio.create_task(follow())
    flood = await begin(
        ves,
        instance,
        f"yes 0123456789 | head -c {FLOOD_BYTES} >/dev/console; echo the end >/dev/console",
    )
    largest = 0
    while following and not flood_over(flood):
        sizes = [file.stat().st_size for file in (path, rotated(path)) if file.exists()]
        largest = max(largest, sum(sizes))
        await asyncio.sleep(0.02)
    assert largest <= 2 * LIMIT_BYTES
    assert sorted(file.name for file in path.parent.glob("console*")) == [
        "console",
        "console.1",
        "console.times",
    ]
    await eventually(lambda: seen.endswith(b"the end\r\n"))
    assert len(read_marks(path)) < 200
    following.cancel()
    await flood.close()


def flood_over(process: ExecProcess) -> bool:
    return bool(process._code.done())  # type: ignore[attr-defined]


async def test_what_was_said_since_a_moment_is_found(ves: Lab, instance: Instance) -> None:
    path = ves.runtime.console(instance.uid)
    await ves.run(instance, "sh", "-c", "echo early >/dev/console")
    await eventually(lambda: sum(mark.end - mark.start for mark in read_marks(path)) == size(path))
    await asyncio.sleep(1.1)
    moment = read_marks(path)[-1].time + 0.5
    await ves.run(instance, "sh", "-c", "echo late >/dev/console")
    await eventually(lambda: read_marks(path)[-1].time > moment)
    pieces = [piece async for piece in read_console(path, since=moment, follow=False)]
    assert b"".join(pieces) == b"late\r\n"


def size(path: Path) -> int:
    return path.stat().st_size


async def test_the_limit_of_the_console_is_a_setting(ves: Lab, instance: Instance) -> None:
    config = (ves.runtime.console(instance.uid).parent / "config").read_text()
    assert re.search(r"lxc\.console\.size = 1024kB", config)
