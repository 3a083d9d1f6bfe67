"""What the API refuses, whatever a client sends: by field and with a hint."""

import math
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from kit.apirig import create_request
from kit.apiserved import USER_METHODS, Served, call, full, make_identities, serving
from veapi.errors import InvalidInput
from veapi.v1 import api_pb2


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_identities(tmp_path_factory.mktemp("identity"))


@pytest.fixture
async def served(ca: Path) -> AsyncIterator[Served]:
    async with serving(ca) as served:
        yield served


def ref(**fields) -> api_pb2.VERef:
    return api_pb2.VERef(**fields)


BAD_INPUT = [
    ("VEService.Create", "name", create_request("")),
    ("VEService.Create", "name", create_request("Web")),
    ("VEService.Create", "name", create_request("a" * 64)),
    ("VEService.Create", "name", create_request("web\n")),
    ("VEService.Create", "name", create_request("../etc")),
    ("VEService.Create", "name", create_request("\N{ARABIC-INDIC DIGIT THREE}")),
    ("VEService.Create", "project", create_request(project="a b")),
    ("VEService.Create", "labels", create_request(labels={"a b": "x"})),
    ("VEService.Create", "labels.a", create_request(labels={"a": "x y"})),
    ("VEService.Create", "spec.image", create_request(image="")),
    ("VEService.Create", "spec.image", create_request(image="A/B")),
    ("VEService.Create", "spec.cpu", create_request(cpu=-1)),
    ("VEService.Create", "spec.cpu", create_request(cpu=math.nan)),
    ("VEService.Create", "spec.cpu", create_request(cpu=math.inf)),
    ("VEService.Create", "spec.cpu", create_request(cpu=1e300)),
    ("VEService.Create", "spec.memory_bytes", create_request(memory_bytes=-1)),
    ("VEService.Create", "spec.memory_bytes", create_request(memory_bytes=1)),
    ("VEService.Create", "spec.memory_bytes", create_request(memory_bytes=2**63 - 1)),
    ("VEService.Create", "spec.disk_bytes", create_request(disk_bytes=-(2**63))),
    ("VEService.Create", "spec.pids", create_request(pids=-1)),
    ("VEService.Create", "spec.pids", create_request(pids=2**63 - 1)),
    ("VEService.Create", "spec.run", create_request(run="on")),
    ("VEService.Create", "spec.on_host_loss", create_request(on_host_loss="explode")),
    ("VEService.Create", "spec.ip", create_request(ip="10.66.0")),
    ("VEService.Create", "spec.ip", create_request(ip="192.0.2.1")),
    ("VEService.Create", "spec.ip", create_request(ip="10.66.0.1")),
    ("VEService.Create", "spec.host", create_request(host="H 1")),
    ("VEService.Create", "request_id", create_request(request_id="x" * 129)),
    ("VEService.Apply", "name", api_pb2.ApplyVERequest()),
    ("VEService.Apply", "spec.cpu", api_pb2.ApplyVERequest(ve=create_request(cpu=-1).ve)),
    ("VEService.Get", "ve.name", ref()),
    ("VEService.Delete", "ve.name", api_pb2.DeleteVERequest(ve=ref())),
    ("VEService.SetRun", "run", api_pb2.SetRunRequest(ve=ref(name="web"), run="x")),
    (
        "VEService.SetRun",
        "stop_timeout_s",
        api_pb2.SetRunRequest(ve=ref(name="web"), run="stopped", stop_timeout_s=-1),
    ),
    (
        "VEService.Restart",
        "stop_timeout_s",
        api_pb2.RestartRequest(ve=ref(name="web"), stop_timeout_s=2**63 - 1),
    ),
    ("VEService.List", "selector", api_pb2.ListVEsRequest(selector="=x")),
    ("VEService.List", "names", api_pb2.ListVEsRequest(names=[""])),
    ("VEService.List", "project", api_pb2.ListVEsRequest(project="../x")),
    ("VEService.Watch", "selector", api_pb2.WatchVEsRequest(selector="a,,b")),
    ("VEService.ListEvents", "ve", api_pb2.ListEventsRequest(ve="A")),
    ("VEService.WatchEvents", "ve", api_pb2.ListEventsRequest(ve="A")),
    ("VEService.Logs", "tail", api_pb2.LogsRequest(ve=ref(name="web"), tail=-1)),
    ("VEService.Exec", "exec", api_pb2.ExecRequest(stdin=b"x")),
    ("HostService.Get", "name", api_pb2.HostRef()),
    ("HostService.List", "selector", api_pb2.ListHostsRequest(selector="!")),
    ("ImageService.Get", "name", api_pb2.ImageRef()),
    ("ImageService.Delete", "name", api_pb2.ImageRef(name="a/b")),
    ("ImageService.Import", "import", api_pb2.ImportImageRequest(chunk=b"x")),
    ("ProjectService.Create", "name", api_pb2.CreateProjectRequest(name="Team A")),
]


async def test_all_bad_input_is_refused_by_field_with_a_hint_and_changes_nothing(
    served: Served,
) -> None:
    methods = {full(method): method for method in USER_METHODS}
    before = dict(served.rig.model.etcd.items)
    async with served.channel() as channel:
        for name, field, request in BAD_INPUT:
            with pytest.raises(InvalidInput) as refused:
                await call(channel, methods[name], request)
            assert refused.value.message.startswith(f"{field}: "), (name, refused.value.message)
            assert refused.value.hint, (name, field)
            assert "Traceback" not in refused.value.message
    assert served.rig.model.etcd.items == before


async def test_text_that_is_not_utf8_never_reaches_a_handler(served: Served) -> None:
    method = "/veapi.v1.ProjectService/Create"
    async with served.channel() as channel:
        make = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await make(b"\x0a\x02\xff\xfe", timeout=2)
    assert "Traceback" not in (refused.value.details() or "")
