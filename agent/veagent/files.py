"""Files of a VE over a stream, by a program that enters it (`inside.transfer`, `inside.export`); running or not."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import grpc.aio
import structlog

import veagent
import veapi
from veagent.hostfiles import Place, VEFiles
from veagent.pidfd import Held
from veagent.pipe import Pipe
from veagent.ports import Instance, Stream
from veagent.runtime.pump import Input, Output
from veapi.clock import Clock
from veapi.errors import NotFound, RemoteFailed, Unavailable, by_kind
from veapi.model import Uid
from veapi.v1 import api_pb2, session_pb2

log = structlog.get_logger()
RECEIVED_EVERY_BYTES = 1 << 20
_WORDS_BYTES = 64 << 10
_END_WITHIN_S = 5.0
_FOLDERS = [str(Path(package.__path__[0]).parent) for package in (veagent, veapi)]
_START = f"import sys; sys.path[:0] = {_FOLDERS!r}; from veagent.inside.{{}} import main; main()"
_TAR = (
    *("tar", "--create", "--file=-", "--format=posix", "--numeric-owner", "--acls", "--xattrs"),
    *("--xattrs-include=user.*", "--xattrs-include=security.capability", "--sparse"),
    *("--one-file-system", "--sort=name", "--anchored", "--exclude=./dev/*"),
    *("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",),
    *("--directory=/target", "."),
)
_ZSTD = ("zstd", "--quiet", "--stdout", "--check", "-3")

Feed = Callable[[Input], Awaitable[None]]
Take = Callable[[bytes], Awaitable[None]]


class Files:
    """Serves push, pull and export. `host` None: a fake host, whose VEs have no files."""

    def __init__(self, host: VEFiles | None, clock: Clock) -> None:
        self._host = host
        self._clock = clock

    async def push(
        self,
        pipe: Pipe,
        uid: Uid,
        instance: Instance | None,
        id_base: int,
        start: api_pb2.PushStart,
    ) -> None:
        """A tar, or one file, in chunks until `end`. A push that breaks off leaves no half file."""
        job: dict[str, object] = {
            "push": True,
            "path": start.path,
            "into": start.into,
            "owner": start.owner,
            "plain": start.plain,
            "mode": start.mode or 0o644,
            "now": int(self._clock.wall()),
        }
        place = self._there().place(uid, instance, id_base)
        feed = _Feed(pipe, plain=start.plain)
        done = await _run(pipe, "transfer", job, place, feed=feed.run)
        await _told(pipe, done)

    async def pull(
        self,
        pipe: Pipe,
        uid: Uid,
        instance: Instance | None,
        id_base: int,
        request: api_pb2.PullRequest,
    ) -> None:
        job: dict[str, object] = {
            "push": False,
            "paths": list(request.paths),
            "recursive": request.recursive,
        }
        place = self._there().place(uid, instance, id_base)
        done = await _run(pipe, "transfer", job, place, take=_sender(pipe))
        await _told(pipe, done)

    async def export(self, pipe: Pipe, uid: Uid, id_base: int, tag: str) -> None:
        """Its whole root as it is now, or as it was at the snapshot `tag`; the end says that all came."""
        job: dict[str, object] = {"tar": _located(_TAR), "zstd": _located(_ZSTD)}
        async with self._there().frozen_copy(uid, tag) as root:
            await _run(pipe, "export", job, Place(uid, root, id_base), take=_sender(pipe))
        await pipe.send(session_pb2.RelayUp(end=True))

    def _there(self) -> VEFiles:
        if self._host is None:
            raise RemoteFailed("VEs of the fake runtime have no files", hint="use a real host")
        return self._host


class _Feed:
    """What the person sends, to the program's stdin."""

    def __init__(self, pipe: Pipe, *, plain: bool) -> None:
        self._pipe = pipe
        self._plain = plain

    async def run(self, sink: Input) -> None:
        received = told = 0
        while (frame := await self._pipe.receive()) is not None:
            if frame.WhichOneof("frame") == "end":
                if self._plain:
                    await sink.write(b"\n")  # says that it is whole
                break
            await sink.write(frame.chunk)
            received += len(frame.chunk)
            if received - told >= RECEIVED_EVERY_BYTES:
                told = received
                await self._pipe.send(session_pb2.RelayUp(push_received_bytes=received))
        sink.close()


def _sender(pipe: Pipe) -> Take:
    async def send(data: bytes) -> None:
        await pipe.send(session_pb2.RelayUp(chunk=data))

    return send


async def _told(pipe: Pipe, done: Mapping[str, object]) -> None:
    notes = done.get("notes")
    transferred = api_pb2.Transferred(
        files=int(str(done.get("files", 0))),
        bytes=int(str(done.get("bytes", 0))),
        notes=[str(note) for note in notes] if isinstance(notes, list) else [],
    )
    await pipe.send(session_pb2.RelayUp(transferred=transferred))


async def _run(
    pipe: Pipe,
    program: str,
    job: dict[str, object],
    place: Place,
    *,
    feed: Feed | None = None,
    take: Take | None = None,
) -> Mapping[str, object]:
    """Runs the program to its end; what it says it did. Raises what it says was wrong; kills it when the person has gone."""
    job |= {"root": str(place.root), "id_base": place.id_base, "cgroups": list(place.cgroups)}
    async with _Program(pipe) as running:
        await running.start(program, job, place, stdin=feed is not None)
        return await running.talk(feed, take)


class _Program:
    """One that enters a VE. Leaving the context ends it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._process: asyncio.subprocess.Process
        self._held: Held | None = None
        self._input: Input | None = None
        self._output: Output
        self._ended: asyncio.Task[None] | None = None
        self._words = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._input is not None:
            self._input.close()
        if self._held is not None:
            self._held.send(signal.SIGKILL)
            self._held.close()
        if self._ended is not None:
            await asyncio.wait([self._ended], timeout=_END_WITHIN_S)
            if not self._ended.done():  # a frozen VE holds it; it ends with that
                log.warning("a program in a VE does not end", pid=self._process.pid)
                self._ended.cancel()

    async def start(
        self, program: str, job: dict[str, object], place: Place, *, stdin: bool
    ) -> None:
        pidfd = _hold(place.init_pid) if place.init_pid else -1
        ends = _Ends(stdin=stdin)
        try:
            job["pidfd"] = pidfd
            words = (sys.executable, "-I", "-S", "-c", _START.format(program), json.dumps(job))
            self._process = await asyncio.create_subprocess_exec(
                *words,
                stdin=ends.child[0],
                stdout=ends.child[1],
                stderr=ends.child[2],
                pass_fds=(pidfd,) if pidfd >= 0 else (),
                env={"LC_ALL": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            ends.close()
            raise
        finally:
            ends.close_child()
            if pidfd >= 0:
                os.close(pidfd)
        with suppress(ProcessLookupError):
            self._held = Held(self._process.pid)
        self._output = Output({ends.out: Stream.STDOUT, ends.err: Stream.STDERR})
        self._input = Input(ends.stdin) if stdin else None
        self._ended = asyncio.create_task(self._until_ended())

    async def talk(self, feed: Feed | None, take: Take | None) -> Mapping[str, object]:
        tasks = [asyncio.create_task(self._consume(take)), asyncio.create_task(self._leaves())]
        feeding = None
        if feed is not None and self._input is not None:
            feeding = asyncio.ensure_future(feed(self._input))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done():
                raise Unavailable("the other side has gone")
            tasks[0].result()
        finally:
            everything = [*tasks, *([feeding] if feeding is not None else [])]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
        return self._said()

    async def _consume(self, take: Take | None) -> None:
        async for stream, data in self._output.pieces():
            if stream is Stream.STDERR:
                self._words = (self._words + data)[-_WORDS_BYTES:]
            elif take is not None:
                try:
                    await take(data)
                except grpc.aio.AioRpcError:
                    raise Unavailable("the other side has gone") from None

    async def _leaves(self) -> None:
        await self._pipe.gone.wait()

    async def _until_ended(self) -> None:
        await self._process.wait()
        self._output.finish()

    def _said(self) -> Mapping[str, object]:
        line = self._words.strip().rpartition(b"\n")[2]
        try:
            found = json.loads(line)
        except ValueError:
            log.warning("a program in a VE failed", words=self._words[-500:])
            raise RemoteFailed(
                "the files could not be reached", hint="the VE may have stopped; try again"
            ) from None
        if found.get("error"):
            raise by_kind(found["error"], found["message"], found["hint"])
        return found  # type: ignore[no-any-return]  # of our own program


class _Ends:
    """Pipes: the child's three, and ours."""

    def __init__(self, *, stdin: bool) -> None:
        theirs, self.stdin = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), -1)
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        self.child = (theirs, out, err)

    def close_child(self) -> None:
        for fd in self.child:
            os.close(fd)

    def close(self) -> None:
        for fd in (self.stdin, self.out, self.err):
            if fd >= 0:
                os.close(fd)


def _hold(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        raise NotFound("the VE has just ended", hint="try again") from None


def _located(argv: tuple[str, ...]) -> list[str]:
    found = shutil.which(argv[0])
    if found is None:
        raise RemoteFailed(
            f"the host lacks the program {argv[0]}", hint=f"on the host: apt install {argv[0]}"
        )
    return [found, *argv[1:]]
