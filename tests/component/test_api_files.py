import asyncio

import pytest

from kit.apirig import NO_CONTEXT, ApiRig, api_rig, iterate
from kit.eventually import eventually
from veapi.errors import Conflict, InvalidInput, NotFound, RemoteFailed
from veapi.model import VEState
from veapi.v1 import api_pb2, session_pb2

Up = session_pb2.RelayUp
WEB = api_pb2.VERef(name="web")


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def start(path: str = "/srv", **fields) -> api_pb2.PushRequest:
    return api_pb2.PushRequest(start=api_pb2.PushStart(ve=WEB, path=path, **fields))


def chunk(data: bytes) -> api_pb2.PushRequest:
    return api_pb2.PushRequest(chunk=data)


def agent_says(rig: ApiRig, *messages: session_pb2.RelayUp | None) -> None:
    for message in messages:
        rig.relays.pipe.up.put_nowait(message)


async def collect(stream) -> list:
    return [message async for message in stream]


DONE = Up(transferred=api_pb2.Transferred(files=2, bytes=5))


async def test_a_push_goes_down_in_order_and_with_an_end_to_a_stopped_ve_too(rig: ApiRig) -> None:
    ve = await rig.running()
    await rig.report(ve.uid, VEState.STOPPED)
    requests = iterate(start(owner="alice:adm"), chunk(b"a"), chunk(b"b"))
    pushing = asyncio.create_task(collect(rig.ve.Push(requests, NO_CONTEXT)))
    await eventually(lambda: len(rig.relays.pipe.sent) == 3)
    frames = [message.WhichOneof("frame") for message in rig.relays.pipe.sent]
    assert frames == ["chunk", "chunk", "end"]
    agent_says(rig, Up(push_received_bytes=2), DONE)
    answers = await pushing
    assert [answer.WhichOneof("frame") for answer in answers] == ["received_bytes", "done"]
    assert answers[-1].done.files == 2
    host, first = rig.relays.opened[0]
    assert (host, first.uid, first.push_files.owner) == ("h1", ve.uid, "alice:adm")
    assert rig.relays.pipe.closed


@pytest.mark.parametrize(
    "request_",
    [
        chunk(b"x"),
        start(""),
        start("srv"),
        start("/a\0"),
        start("/" + "x" * 256),
        start(owner="-1"),
        start(owner="a b"),
        start(owner="70000"),
        start(mode=0o10000),
    ],
)
async def test_a_bad_start_of_a_push_is_refused_with_a_hint(rig: ApiRig, request_) -> None:
    await rig.running()
    (answer,) = await collect(rig.ve.Push(iterate(request_), NO_CONTEXT))
    assert answer.failure.kind == InvalidInput.kind
    assert answer.failure.hint
    assert not rig.relays.opened


@pytest.mark.parametrize("frame", [start(), chunk(b"x" * ((1 << 20) + 1))])
async def test_a_bad_frame_ends_a_push_without_an_end(rig: ApiRig, frame) -> None:
    await rig.running()
    *_, answer = await collect(rig.ve.Push(iterate(start(), frame), NO_CONTEXT))
    assert answer.failure.kind == InvalidInput.kind
    assert not any(message.WhichOneof("frame") == "end" for message in rig.relays.pipe.sent)


async def test_a_pull_passes_pieces_and_its_end(rig: ApiRig) -> None:
    await rig.running()
    agent_says(rig, Up(chunk=b"ab"), DONE)
    request = api_pb2.PullRequest(ve=WEB, paths=["/etc", "/srv"], recursive=True)
    frames = await collect(rig.ve.Pull(request, NO_CONTEXT))
    assert [frame.WhichOneof("frame") for frame in frames] == ["chunk", "done"]
    assert list(rig.relays.opened[0][1].pull_files.paths) == ["/etc", "/srv"]


@pytest.mark.parametrize("paths", [[], ["etc"], ["/ok", "../x"], ["/a\0"], ["/a"] * 65])
async def test_bad_paths_of_a_pull_are_refused_with_a_hint(rig: ApiRig, paths) -> None:
    await rig.running()
    with pytest.raises(InvalidInput) as refused:
        await collect(rig.ve.Pull(api_pb2.PullRequest(ve=WEB, paths=paths), NO_CONTEXT))
    assert refused.value.hint


async def test_an_export_begins_with_the_ve_and_ends_only_when_all_came(rig: ApiRig) -> None:
    ve = await rig.running()
    agent_says(rig, Up(chunk=b"ab"), Up(end=True))
    request = api_pb2.ExportRequest(ve=WEB, snapshot="before")
    frames = await collect(rig.ve.Export(request, NO_CONTEXT))
    assert [frame.WhichOneof("frame") for frame in frames] == ["ve", "chunk", "end"]
    assert frames[0].ve.uid == ve.uid
    assert rig.relays.opened[0][1].export_root.snapshot == "before"


async def test_a_host_that_breaks_off_has_failed(rig: ApiRig) -> None:
    await rig.running()
    agent_says(rig, Up(chunk=b"ab"), None)
    with pytest.raises(RemoteFailed) as refused:
        await collect(rig.ve.Export(api_pb2.ExportRequest(ve=WEB), NO_CONTEXT))
    assert refused.value.hint


async def test_what_the_host_refuses_reaches_the_person(rig: ApiRig) -> None:
    await rig.running()
    failure = api_pb2.Failure(kind="not_found", message="no such file", hint="look")
    agent_says(rig, Up(failure=failure))
    with pytest.raises(NotFound, match="no such file"):
        await collect(rig.ve.Pull(api_pb2.PullRequest(ve=WEB, paths=["/x"]), NO_CONTEXT))


async def test_a_ve_without_a_host_and_one_that_goes_have_no_files(rig: ApiRig) -> None:
    await rig.create("web")
    with pytest.raises(Conflict, match="no host"):
        await collect(rig.ve.Pull(api_pb2.PullRequest(ve=WEB, paths=["/x"]), NO_CONTEXT))
    ve = await rig.ve.Get(WEB, NO_CONTEXT)
    await rig.place(ve.uid)
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    with pytest.raises(Conflict, match="being deleted"):
        await collect(rig.ve.Export(api_pb2.ExportRequest(ve=WEB), NO_CONTEXT))


@pytest.mark.parametrize(
    "begin",
    [
        {"login": True, "command": ["x"]},
        {"console": True},
        {"console": True, "login": True, "tty": True},
        {"command": ["x"], "user": "-u"},
        {"command": ["x"], "user": "a\nb"},
        {"command": ["x"], "user": "65536"},
        {"command": ["x"], "cwd": "rel"},
        {"command": ["x"], "cwd": "/a\0"},
        {},
    ],
)
async def test_a_bad_exec_is_refused_with_a_hint(rig: ApiRig, begin) -> None:
    await rig.running()
    request = api_pb2.ExecRequest(start=api_pb2.ExecStart(ve=WEB, **begin))
    with pytest.raises(InvalidInput) as refused:
        await collect(rig.ve.Exec(iterate(request), NO_CONTEXT))
    assert refused.value.hint
    assert not rig.relays.opened
