"""vectl's streams: commands in a VE, terminals, logs, and a reader that goes away."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit import fakeapi
from kit.eventually import eventually
from kit.fakeapi import FakeApi
from kit.vectlrun import Vectl, ended, screen


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeApi]:
    async with fakeapi.serve(tmp_path) as served:
        yield served


@pytest.fixture
def vectl(api: FakeApi, tmp_path: Path) -> Vectl:
    return Vectl(api, tmp_path)


async def test_exec_gives_output_and_the_commands_code(vectl: Vectl) -> None:
    await vectl("create", "web", "--image", "ok")
    assert (await vectl("exec", "web", "--", "exit", "7", code=7)).err == ""
    both = await vectl("exec", "web", "both")
    assert (both.out, both.err) == ("out\n", "err\n")
    big = bytes(range(256)) * 4096
    process = await vectl.start("exec", "-i", "web", "--", "cat")
    assert (await process.communicate(big))[0] == big
    assert (await vectl("exec", "web", "--", "args", "-l", "--", "-x")).out == "args -l -- -x"


async def test_exec_reads_a_file_as_input(vectl: Vectl, tmp_path: Path) -> None:
    await vectl("create", "web", "--image", "ok")
    (tmp_path / "input").write_text("from a file")
    with (tmp_path / "input").open() as file:
        process = await vectl.start("exec", "-i", "web", "cat", stdin=file)
        assert (await process.communicate())[0] == b"from a file"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["web", "--", "nope"], "can't run it"),
        (["nobody", "--", "true"], "no VE nobody"),
        (["asleep", "--", "true"], "does not run"),
        (["web", "--", "gone"], "ended before"),
        (["--endpoint", "unix:/nonexistent", "web", "--", "true"], "/nonexistent"),
    ],
)
async def test_exec_that_can_not_run_ends_with_125(
    vectl: Vectl, arguments: list[str], word: str
) -> None:
    await vectl("create", "web", "--image", "ok")
    await vectl("create", "asleep", "--image", "ok", "--stopped")
    ran = await vectl("exec", *arguments, code=125)
    assert word in ran.err
    assert "Hint: " in ran.err


async def test_exec_passes_signals_on(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok")
    process = await vectl.start("exec", "web", "--", "signals")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130
    assert api.cluster.signals == [signal.SIGINT]


async def test_exec_on_a_terminal_is_raw_has_its_size_and_follows_it(vectl: Vectl) -> None:
    await vectl("create", "web", "--image", "ok")
    async with screen(vectl, "exec", "-it", "web", "--", "size") as shown:
        before = shown.mode()
        await shown.shows(b"xterm-test True 101x33\r\n")
        shown.resize(77, 20)
        await shown.shows(b"now 77x20\r\n")
        shown.type(b"\x03\x1a\r")
        await shown.shows(b"got 031a0d\r\n")
        shown.type(b"q")
        assert await shown.code() == 42
        assert shown.mode() == before


async def test_a_terminal_is_restored_when_the_controller_dies(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok")
    async with screen(vectl, "exec", "-it", "web", "--", "size") as shown:
        before = shown.mode()
        await shown.shows(b"101x33")
        await eventually(lambda: shown.mode() != before)
        await api.server.stop(0)
        assert await shown.code() == 125
        assert b"Error: " in shown.seen
        assert shown.mode() == before


async def test_logs_are_passed_on_byte_by_byte_and_harmless_on_a_terminal(
    vectl: Vectl, api: FakeApi
) -> None:
    await vectl("create", "web", "--image", "ok")
    api.cluster.logs = b"one\n\x1b]0;title\x07two\n"
    assert (await vectl("logs", "web")).out == "one\n\x1b]0;title\x07two\n"
    assert (await vectl("logs", "web", "--tail", "1")).out == "\x1b]0;title\x07two\n"
    process = await vectl.start("logs", "-f", "web")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"one\n"
    api.cluster.release()
    assert (await ended(process)).out.endswith("later\n")
    async with screen(vectl, "logs", "web") as shown:
        assert await shown.code() == 0
        await shown.shows(b"one\r\ntwo\r\n")


async def test_a_reader_that_goes_away_is_no_error_and_a_full_disk_is(vectl: Vectl) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    ran = await ended(await vectl.start("list", stdout=ours))
    os.close(ours)
    assert ran.err == ""
    full = os.open("/dev/full", os.O_WRONLY)
    ran = await ended(await vectl.start("list", stdout=full))
    os.close(full)
    assert ran.code == 8
    assert "No space left on device" in ran.err
    assert "Hint: " in ran.err
