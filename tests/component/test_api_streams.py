import asyncio

import pytest

from kit.apirig import ALPINE, DEBIAN, NO_CONTEXT, ApiRig, FakePipe, api_rig, closable, iterate
from kit.eventually import eventually
from veapi.errors import Conflict, InvalidInput, NotFound, RemoteFailed, Unavailable
from veapi.model import HostState, VEState
from veapi.v1 import api_pb2, session_pb2

Up = session_pb2.RelayUp
WEB = api_pb2.VERef(name="web")


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def start(*command: str, **fields) -> api_pb2.ExecRequest:
    begin = api_pb2.ExecStart(ve=WEB, command=command or ("true",), **fields)
    return api_pb2.ExecRequest(start=begin)


def agent_says(rig: ApiRig, *messages: session_pb2.RelayUp | None) -> None:
    for message in messages:
        rig.relays.pipe.up.put_nowait(message)


async def collect(stream) -> list:
    return [message async for message in stream]


def out(**frame) -> session_pb2.RelayUp:
    return Up(exec=api_pb2.ExecResponse(**frame))


async def test_exec_passes_both_ways_and_ends_with_the_exit_code(rig: ApiRig) -> None:
    ve = await rig.running()
    agent_says(rig, out(stdout=b"hi"), out(stderr=b"no"), out(exit_code=3))
    requests = iterate(start("cat"), api_pb2.ExecRequest(stdin=b"in"))
    frames = await collect(rig.ve.Exec(requests, NO_CONTEXT))
    assert [frame.WhichOneof("frame") for frame in frames] == ["stdout", "stderr", "exit_code"]
    assert frames[-1].exit_code == 3
    host, first = rig.relays.opened[0]
    assert (host, first.uid, list(first.exec.start.command)) == ("h1", ve.uid, ["cat"])
    assert rig.relays.pipe.closed


async def test_a_client_that_sends_no_more_closes_stdin(rig: ApiRig) -> None:
    await rig.running()
    requests = iterate(start("cat"), api_pb2.ExecRequest(stdin=b"in"))
    running = asyncio.create_task(collect(rig.ve.Exec(requests, NO_CONTEXT)))
    await eventually(lambda: len(rig.relays.pipe.sent) == 2)
    assert [each.exec.WhichOneof("frame") for each in rig.relays.pipe.sent] == [
        "stdin",
        "stdin_closed",
    ]
    agent_says(rig, out(exit_code=0))
    await running


async def test_a_client_that_goes_away_closes_the_stream_to_the_host(rig: ApiRig) -> None:
    await rig.running()
    running = asyncio.create_task(collect(rig.ve.Exec(iterate(start()), NO_CONTEXT)))
    await eventually(lambda: rig.relays.opened)
    running.cancel()
    await eventually(lambda: rig.relays.pipe.closed)


async def test_a_failure_of_the_host_is_the_last_frame(rig: ApiRig) -> None:
    await rig.running()
    agent_says(rig, Up(failure=api_pb2.Failure(kind="not_found", message="no such command")))
    frames = await collect(rig.ve.Exec(iterate(start()), NO_CONTEXT))
    assert frames[-1].failure.message == "no such command"


async def test_a_host_that_ends_without_an_exit_code_has_failed(rig: ApiRig) -> None:
    await rig.running()
    agent_says(rig, None)
    with pytest.raises(RemoteFailed) as refused:
        await collect(rig.ve.Exec(iterate(start()), NO_CONTEXT))
    assert refused.value.hint


@pytest.mark.parametrize(
    ("state", "hint"), [(VEState.STOPPED, "vectl start web"), (VEState.FAILED, "vectl show web")]
)
async def test_exec_needs_a_running_ve(rig: ApiRig, state: VEState, hint: str) -> None:
    ve = await rig.running()
    await rig.report(ve.uid, state)
    with pytest.raises(Conflict, match=f"is {state}, not Running") as refused:
        await collect(rig.ve.Exec(iterate(start()), NO_CONTEXT))
    assert hint in refused.value.hint
    assert not rig.relays.opened


@pytest.mark.parametrize(
    "request_",
    [
        api_pb2.ExecRequest(stdin=b"x"),
        start(""),
        start("a\0"),
        start("x" * 200_000),
        start(env={"A=B": "x"}),
        start(term="a b"),
        start(window=api_pb2.WindowSize(columns=70_000, rows=1)),
    ],
)
async def test_a_bad_start_is_refused_with_a_hint(rig: ApiRig, request_) -> None:
    await rig.running()
    with pytest.raises(InvalidInput) as refused:
        await collect(rig.ve.Exec(iterate(request_), NO_CONTEXT))
    assert refused.value.hint


async def test_no_start_at_all_is_refused(rig: ApiRig) -> None:
    with pytest.raises(InvalidInput):
        await collect(rig.ve.Exec(iterate(), NO_CONTEXT))


@pytest.mark.parametrize(
    "frame",
    [start(), api_pb2.ExecRequest(signal=99), api_pb2.ExecRequest(stdin=b"x" * ((1 << 20) + 1))],
)
async def test_a_bad_frame_ends_the_stream_with_a_hint(rig: ApiRig, frame) -> None:
    await rig.running()
    with pytest.raises(InvalidInput) as refused:
        await collect(rig.ve.Exec(iterate(start(), frame), NO_CONTEXT))
    assert refused.value.hint


async def test_logs_come_from_the_host_until_their_end(rig: ApiRig) -> None:
    ve = await rig.running()
    await rig.report(ve.uid, VEState.STOPPED)
    agent_says(rig, Up(log=b"one"), Up(log=b"two"), Up(end=True))
    request = api_pb2.LogsRequest(ve=WEB, follow=True, tail=5)
    assert [each.data for each in await collect(rig.ve.Logs(request, NO_CONTEXT))] == [
        b"one",
        b"two",
    ]
    _, first = rig.relays.opened[0]
    assert (first.uid, first.logs.follow, first.logs.tail) == (ve.uid, True, 5)
    assert rig.relays.pipe.closed


async def test_logs_of_a_ve_that_is_deleted_end_quietly_and_of_another_do_not(rig: ApiRig) -> None:
    await rig.running()
    request = api_pb2.LogsRequest(ve=WEB, follow=True)
    agent_says(rig, Up(log=b"one"), None)
    with pytest.raises(RemoteFailed) as refused:
        await collect(rig.ve.Logs(request, NO_CONTEXT))
    assert refused.value.hint
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    rig.relays.pipe = FakePipe()
    agent_says(rig, Up(log=b"one"), None)
    assert [each.data for each in await collect(rig.ve.Logs(request, NO_CONTEXT))] == [b"one"]


async def test_logs_of_a_ve_without_a_host_are_a_conflict(rig: ApiRig) -> None:
    await rig.create("web")
    with pytest.raises(Conflict, match="no host yet") as refused:
        await collect(rig.ve.Logs(api_pb2.LogsRequest(ve=WEB), NO_CONTEXT))
    assert refused.value.hint
    with pytest.raises(InvalidInput):
        await collect(rig.ve.Logs(api_pb2.LogsRequest(ve=WEB, tail=-1), NO_CONTEXT))


def importing(name: str = "alpine", size: int = 0) -> api_pb2.ImportImageRequest:
    begin = api_pb2.ImportImageStart(name=name, size_bytes=size)
    return api_pb2.ImportImageRequest(start=begin)


def chunk(data: bytes) -> api_pb2.ImportImageRequest:
    return api_pb2.ImportImageRequest(chunk=data)


def done(digest: str = ALPINE, blob: str = "sha256:blob") -> session_pb2.RelayUp:
    return Up(
        upload_done=session_pb2.HeldImage(
            digest=digest, blob_digest=blob, size_bytes=20, blob_bytes=8
        )
    )


async def import_(rig: ApiRig, *requests) -> list[api_pb2.ImportImageResponse]:
    return await collect(rig.image.Import(iterate(*requests), NO_CONTEXT))


async def test_an_import_stores_image_and_tag_and_says_its_progress(rig: ApiRig) -> None:
    await rig.put_host(images=[DEBIAN, ALPINE])
    agent_says(rig, Up(upload_received_bytes=4), done())
    frames = await import_(rig, importing(size=8), chunk(b"1234"), chunk(b"5678"))
    assert frames[0].progress.received_bytes == 4
    assert frames[-2].progress.step == "replicating"
    assert (frames[-2].progress.hosts_done, frames[-2].progress.hosts_wanted) == (1, 1)
    image = frames[-1].image
    assert (image.digest, list(image.tags), list(image.hosts)) == (ALPINE, ["alpine"], ["h1"])
    assert rig.mirror.view.tags["alpine"].value == ALPINE


async def test_an_upload_goes_down_in_order_and_with_an_end(rig: ApiRig) -> None:
    running = asyncio.create_task(import_(rig, importing(size=8), chunk(b"1234"), chunk(b"5678")))
    await eventually(lambda: len(rig.relays.pipe.sent) == 3)
    sent = rig.relays.pipe.sent
    assert [each.chunk for each in sent[:2]] == [b"1234", b"5678"]
    assert sent[2].end
    running.cancel()


async def test_an_import_waits_until_the_ready_hosts_hold_it(rig: ApiRig) -> None:
    await rig.put_host("h2")
    await rig.put_host("h3")
    rig.hosts.states["h3"] = HostState.SILENT
    agent_says(rig, done())
    stream = rig.image.Import(iterate(importing(), chunk(b"x")), NO_CONTEXT)
    assert (await anext(stream)).progress.hosts_wanted == 2
    await rig.put_host("h1", images=[ALPINE])
    assert (await anext(stream)).progress.hosts_done == 1
    await rig.put_host("h2", images=[ALPINE])
    assert (await anext(stream)).progress.hosts_done == 2
    assert list((await anext(stream)).image.hosts) == ["h1", "h2"]


async def test_hosts_that_are_late_do_not_hold_an_import_for_ever(rig: ApiRig) -> None:
    agent_says(rig, done())
    stream = rig.image.Import(iterate(importing(), chunk(b"x")), NO_CONTEXT)
    assert (await anext(stream)).progress.hosts_done == 0
    rig.clock.now += 61
    assert not list((await anext(stream)).image.hosts)


async def test_the_host_with_the_most_free_disk_takes_the_upload(rig: ApiRig) -> None:
    await rig.put_host("h2", disk_gib=200)
    await rig.put_host("h3", disk_gib=200)
    agent_says(rig, done(DEBIAN))
    rig.hosts.states["h2"] = HostState.SILENT
    stream = rig.image.Import(iterate(importing(), chunk(b"x")), NO_CONTEXT)
    await anext(stream)
    assert rig.relays.opened[0][0] == "h3"
    await closable(stream).aclose()


async def test_a_host_that_can_not_be_reached_is_passed_over(rig: ApiRig) -> None:
    await rig.put_host("h2", disk_gib=200)
    rig.relays.away = {"h2"}
    agent_says(rig, done(DEBIAN))
    stream = rig.image.Import(iterate(importing(), chunk(b"x")), NO_CONTEXT)
    await anext(stream)
    assert rig.relays.opened[0][0] == "h1"
    await closable(stream).aclose()
    rig.relays.away = {"h1", "h2"}
    with pytest.raises(Unavailable) as refused:
        await import_(rig, importing(), chunk(b"x"))
    assert refused.value.hint


async def test_without_a_ready_host_nothing_can_be_imported(rig: ApiRig) -> None:
    rig.hosts.states["h1"] = HostState.SILENT
    with pytest.raises(Conflict, match="no host is Ready") as refused:
        await import_(rig, importing(), chunk(b"x"))
    assert refused.value.hint


@pytest.mark.parametrize(
    "requests",
    [
        (chunk(b"x"),),
        (importing("Bad Name"), chunk(b"x")),
        (importing("a/b"), chunk(b"x")),
        (importing(size=-1), chunk(b"x")),
        (importing(size=2**62), chunk(b"x")),
        (importing(),),
        (importing(size=4), chunk(b"12")),
        (importing(size=4), chunk(b"12345")),
        (importing(), importing()),
        (importing(), chunk(b"x" * ((1 << 20) + 1))),
    ],
)
async def test_a_bad_or_broken_upload_leaves_nothing_in_the_store(rig: ApiRig, requests) -> None:
    before = dict(rig.model.etcd.items)
    with pytest.raises(InvalidInput) as refused:
        await import_(rig, *requests)
    assert refused.value.hint
    assert rig.model.etcd.items == before
    assert not any(message.end for message in rig.relays.pipe.sent)


async def test_a_file_that_is_no_image_is_refused_by_the_host(rig: ApiRig) -> None:
    before = dict(rig.model.etcd.items)
    failure = api_pb2.Failure(kind="invalid_input", message="this is no tar", hint="use a tar")
    agent_says(rig, Up(failure=failure))
    with pytest.raises(InvalidInput, match="this is no tar") as refused:
        await import_(rig, importing(), chunk(b"x"))
    assert refused.value.hint == "use a tar"
    assert rig.model.etcd.items == before


async def test_importing_the_same_image_again_changes_nothing(rig: ApiRig) -> None:
    agent_says(rig, done(DEBIAN))
    before = dict(rig.model.etcd.items)
    frames = await import_(rig, importing("debian"), chunk(b"x"))
    assert frames[-1].image.digest == DEBIAN
    assert rig.model.etcd.items == before


async def test_a_known_image_gets_another_tag_and_keeps_its_blob(rig: ApiRig) -> None:
    agent_says(rig, done(DEBIAN, "sha256:other"))
    frames = await import_(rig, importing("debian:12"), chunk(b"x"))
    assert list(frames[-1].image.tags) == ["debian", "debian:12"]
    assert frames[-1].image.blob_digest == "sha256:b"


async def test_a_tag_is_never_moved_silently(rig: ApiRig) -> None:
    agent_says(rig, done(ALPINE))
    with pytest.raises(Conflict, match="another one already") as refused:
        await import_(rig, importing("debian"), chunk(b"x"))
    assert "vectl image delete debian" in refused.value.hint
    assert ALPINE not in rig.mirror.view.images


async def test_images_are_shown_and_listed(rig: ApiRig) -> None:
    await rig.put_image("alpine", ALPINE)
    by_tag = await rig.image.Get(api_pb2.ImageRef(name="debian"), NO_CONTEXT)
    assert by_tag == await rig.image.Get(api_pb2.ImageRef(name=DEBIAN), NO_CONTEXT)
    assert list(by_tag.hosts) == ["h1"]
    listed = (await rig.image.List(api_pb2.ListImagesRequest(), NO_CONTEXT)).images
    assert [image.tags[0] for image in listed] == ["alpine", "debian"]
    with pytest.raises(NotFound) as refused:
        await rig.image.Get(api_pb2.ImageRef(name="debain"), NO_CONTEXT)
    assert "debian" in refused.value.hint


async def test_an_image_that_a_ve_uses_is_kept_and_the_ve_named(rig: ApiRig) -> None:
    await rig.create("web")
    for name in ("debian", DEBIAN):
        with pytest.raises(Conflict, match="default/web") as refused:
            await rig.image.Delete(api_pb2.ImageRef(name=name), NO_CONTEXT)
        assert refused.value.hint
    assert DEBIAN in rig.mirror.view.images


async def test_an_image_without_users_goes_with_its_tags(rig: ApiRig) -> None:
    gone = await rig.image.Delete(api_pb2.ImageRef(name="debian"), NO_CONTEXT)
    assert gone.digest == DEBIAN
    assert not rig.mirror.view.images
    assert not rig.mirror.view.tags
    with pytest.raises(NotFound):
        await rig.image.Delete(api_pb2.ImageRef(name="debian"), NO_CONTEXT)


async def test_one_of_two_tags_goes_alone_also_of_a_used_image(rig: ApiRig) -> None:
    await rig.put_image("debian:12", DEBIAN)
    await rig.create("web")
    await rig.image.Delete(api_pb2.ImageRef(name="debian"), NO_CONTEXT)
    assert list(rig.mirror.view.tags) == ["debian:12"]
    assert DEBIAN in rig.mirror.view.images


async def test_an_image_is_not_deleted_under_a_ve_that_is_being_created(rig: ApiRig) -> None:
    results = await asyncio.gather(
        rig.create("web"),
        rig.image.Delete(api_pb2.ImageRef(name="debian"), NO_CONTEXT),
        return_exceptions=True,
    )
    assert isinstance(results[1], Conflict)
    assert DEBIAN in rig.mirror.view.images


async def test_a_ve_is_not_created_of_an_image_that_is_being_deleted(rig: ApiRig) -> None:
    results = await asyncio.gather(
        rig.image.Delete(api_pb2.ImageRef(name="debian"), NO_CONTEXT),
        rig.create("web"),
        return_exceptions=True,
    )
    assert isinstance(results[1], NotFound)
    assert not rig.mirror.view.ves
