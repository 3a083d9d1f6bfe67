"""Pulls from a registry, and where an image is asked for."""

import asyncio

import pytest

from kit.apirig import ALPINE, NO_CONTEXT, ApiRig, api_rig
from kit.eventually import eventually
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import HostState
from veapi.v1 import api_pb2, session_pb2, types_pb2

Up = session_pb2.RelayUp
SOURCE = "docker://registry.example.org/team/app:1"
CONFIG = types_pb2.ImageConfig(command=["/app"], env={"A": "1"}, user="web", cwd="/srv")
HELD = session_pb2.HeldImage(
    digest=ALPINE, blob_digest="sha256:" + "b" * 64, size_bytes=30, blob_bytes=10, config=CONFIG
)


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def pulling(name: str = "app:1", source: str = SOURCE, **fields) -> api_pb2.PullImageRequest:
    return api_pb2.PullImageRequest(name=name, source=source, **fields)


def host_says(rig: ApiRig, *messages: session_pb2.RelayUp) -> None:
    for message in messages:
        rig.relays.pipe.up.put_nowait(message)


async def pull(rig: ApiRig, request: api_pb2.PullImageRequest):
    return [message async for message in rig.image.Pull(request, NO_CONTEXT)]


async def test_a_host_pulls_and_the_image_is_kept_with_what_it_runs(rig: ApiRig) -> None:
    await rig.put_host("h1", images=[ALPINE])
    host_says(rig, Up(upload_received_bytes=7), Up(upload_done=HELD))
    answers = await pull(rig, pulling(insecure=True))
    steps = [answer.progress.step for answer in answers[:-1]]
    assert steps[0] == "pulling"
    assert answers[0].progress.received_bytes == 7
    image = answers[-1].image
    assert (image.digest, list(image.tags)) == (ALPINE, ["app:1"])
    assert image.config == CONFIG
    _, first = rig.relays.opened[0]
    assert (first.pull.source, first.pull.insecure) == (SOURCE, True)
    assert rig.relays.pipe.closed


async def test_a_person_who_leaves_ends_the_pull(rig: ApiRig) -> None:
    await rig.put_host("h1")
    task = asyncio.create_task(pull(rig, pulling()))
    await eventually(lambda: rig.relays.opened)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await eventually(lambda: rig.relays.pipe.closed)
    assert ALPINE not in rig.mirror.view.images


async def test_what_the_host_says_against_it_reaches_the_person(rig: ApiRig) -> None:
    await rig.put_host("h1")
    failure = api_pb2.Failure(kind=NotFound.kind, message="manifest unknown", hint="look")
    host_says(rig, Up(failure=failure))
    with pytest.raises(NotFound, match="manifest unknown"):
        await pull(rig, pulling())
    assert ALPINE not in rig.mirror.view.images


@pytest.mark.parametrize(
    "request_",
    [
        pulling(source="oci:/etc"),
        pulling(source="docker://-o/x"),
        pulling(name="../x"),
        pulling(name=""),
    ],
)
async def test_odd_names_and_sources_reach_no_host(rig: ApiRig, request_) -> None:
    await rig.put_host("h1")
    with pytest.raises(InvalidInput) as refused:
        await pull(rig, request_)
    assert refused.value.hint
    assert rig.relays.opened == []


async def test_a_config_that_is_too_large_is_not_stored(rig: ApiRig) -> None:
    await rig.put_host("h1")
    huge = session_pb2.HeldImage()
    huge.CopyFrom(HELD)
    huge.config.env["A"] = "x" * 100_000
    host_says(rig, Up(upload_done=huge))
    with pytest.raises(InvalidInput):
        await pull(rig, pulling())
    assert ALPINE not in rig.mirror.view.images


async def test_without_a_ready_host_nothing_can_be_pulled(rig: ApiRig) -> None:
    rig.hosts.states["h1"] = HostState.SILENT
    with pytest.raises(Conflict, match="no host is Ready"):
        await pull(rig, pulling())


def prefetch(name: str, **fields) -> api_pb2.SetPrefetchRequest:
    return api_pb2.SetPrefetchRequest(name=name, prefetch=types_pb2.Prefetch(**fields))


async def test_a_prefetch_is_kept_with_the_image_until_it_is_taken_away(rig: ApiRig) -> None:
    await rig.put_host("h1", images=[ALPINE])
    host_says(rig, Up(upload_done=HELD))
    await pull(rig, pulling())
    image = await rig.image.SetPrefetch(
        prefetch("app:1", selector="rack=r1", hosts=["h1", "h1"]), NO_CONTEXT
    )
    assert (image.prefetch.selector, list(image.prefetch.hosts)) == ("rack=r1", ["h1"])
    assert image.config == CONFIG
    shown = await rig.image.Get(api_pb2.ImageRef(name="app:1"), NO_CONTEXT)
    assert shown.prefetch == image.prefetch
    image = await rig.image.SetPrefetch(prefetch("app:1"), NO_CONTEXT)
    assert image.prefetch == types_pb2.Prefetch()


async def test_a_pull_of_a_known_image_keeps_its_prefetch(rig: ApiRig) -> None:
    await rig.put_host("h1", images=[ALPINE])
    host_says(rig, Up(upload_done=HELD))
    await pull(rig, pulling())
    await rig.image.SetPrefetch(prefetch("app:1", selector="rack"), NO_CONTEXT)
    rig.relays.pipe = type(rig.relays.pipe)()
    host_says(rig, Up(upload_done=HELD))
    image = (await pull(rig, pulling(name="app:2")))[-1].image
    assert image.prefetch.selector == "rack"


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (prefetch("nothing", hosts=["h1"]), NotFound),
        (prefetch("app:1", hosts=["h9"]), NotFound),
        (prefetch("app:1", selector="a=b=c"), InvalidInput),
        (prefetch("app:1", selector="x" * 2000), InvalidInput),
        (prefetch("app:1", hosts=[f"h{n}" for n in range(300)]), InvalidInput),
    ],
)
async def test_a_prefetch_that_could_never_come_true_is_refused(rig: ApiRig, request_, error):
    await rig.put_host("h1", images=[ALPINE])
    host_says(rig, Up(upload_done=HELD))
    await pull(rig, pulling())
    with pytest.raises(error) as refused:
        await rig.image.SetPrefetch(request_, NO_CONTEXT)
    assert refused.value.hint
