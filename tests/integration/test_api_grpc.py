"""The API over real gRPC and mTLS on loopback; the store is a model."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory

from kit import certs
from kit.apirig import NO_CONTEXT, ApiRig, api_rig, create_request
from kit.eventually import eventually
from veapi.channel import (
    CLIENT_OPTIONS,
    SERVER_OPTIONS,
    Identity,
    Role,
    controller_name,
    open_channel,
    server_credentials,
)
from veapi.errors import Conflict, Denied, InvalidInput, NotFound, RemoteFailed, TimedOut
from veapi.rpc import from_rpc
from veapi.v1 import api_pb2, api_pb2_grpc, session_pb2, session_pb2_grpc, types_pb2
from vecontroller.api.guard import GuardInterceptor
from vecontroller.api.register import register
from vecontroller.identity import create_ca, issue

USER_METHODS = [
    method for service in api_pb2.DESCRIPTOR.services_by_name.values() for method in service.methods
]
AGENT_METHODS = list(session_pb2.DESCRIPTOR.services_by_name["AgentService"].methods)


class Agents(session_pb2_grpc.AgentServiceServicer):
    """Ends every stream at once, in both styles of handlers."""

    async def Session(self, request_iterator, context):  # noqa: N802
        if False:
            yield

    async def Heartbeat(self, request_iterator, context):  # type: ignore[override]  # noqa: N802
        return

    async def Relay(self, request_iterator, context):  # noqa: N802
        if False:
            yield


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity")
    create_ca(folder / "ca", "rack")
    for role, name in ((Role.CONTROLLER, "c1"), (Role.HOST, "h1"), (Role.USER, "ann")):
        issue(folder / "ca", role, name, folder / role.value)
    return folder


def identity(folder: Path) -> Identity:
    return Identity(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")


class Served:
    """A controller's API that is served, and channels to it."""

    def __init__(self, rig: ApiRig, ca: Path, port: int) -> None:
        self.rig = rig
        self.ca = ca
        self.target = f"127.0.0.1:{port}"

    @asynccontextmanager
    async def channel(self, role: Role = Role.USER) -> AsyncIterator[grpc.aio.Channel]:
        async with self.channel_as(identity(self.ca / role.value)) as channel:
            yield channel

    @asynccontextmanager
    async def channel_as(self, who: Identity) -> AsyncIterator[grpc.aio.Channel]:
        channel = open_channel(self.target, server=controller_name("rack"), identity=who)
        async with channel:
            yield channel

    def narrow_channel(self) -> grpc.aio.Channel:
        """Takes 64 KiB ahead of its reader, and no more."""
        who = identity(self.ca / "user")
        ca, cert, key = who.read()
        options = [
            *CLIENT_OPTIONS,
            ("grpc.ssl_target_name_override", controller_name("rack")),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", 65_536),
        ]
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.aio.secure_channel(self.target, credentials, options=options)


@asynccontextmanager
async def serving(ca: Path, **options) -> AsyncIterator[Served]:
    async with api_rig() as rig:
        interceptor = GuardInterceptor("rack", **options)
        server = grpc.aio.server(interceptors=[interceptor], options=SERVER_OPTIONS)
        register(server, rig.deps)
        session_pb2_grpc.add_AgentServiceServicer_to_server(Agents(), server)
        credentials = server_credentials(identity(ca / "controller"))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            yield Served(rig, ca, port)
        finally:
            await server.stop(0)


@pytest.fixture
async def served(ca: Path) -> AsyncIterator[Served]:
    async with serving(ca) as served:
        yield served


async def call(channel: grpc.aio.Channel, method, request=None) -> list:
    """All answers of any kind of method, found by its descriptor. Raises veapi.errors."""
    kinds = {False: "unary", True: "stream"}
    kind = f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"
    make = getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    message = request or message_factory.GetMessageClass(method.input_type)()
    argument = iter([message]) if method.client_streaming else message
    try:
        if method.server_streaming:
            return [answer async for answer in make(argument, timeout=5)]
        return [await make(argument, timeout=5)]
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None


def full(method) -> str:
    name: str = method.full_name
    return name.removeprefix("veapi.v1.")


@pytest.mark.parametrize("role", [Role.HOST, Role.CONTROLLER])
async def test_no_method_for_users_can_be_called_by_another_role(
    served: Served, role: Role
) -> None:
    before = dict(served.rig.model.etcd.items)
    async with served.channel(role) as channel:
        for method in USER_METHODS:
            with pytest.raises(Denied, match=f"{role.value}.* may not call") as refused:
                await call(channel, method)
            assert refused.value.hint, full(method)
    assert served.rig.model.etcd.items == before


@pytest.mark.parametrize("role", [Role.USER, Role.CONTROLLER])
async def test_no_method_for_agents_can_be_called_by_another_role(
    served: Served, role: Role
) -> None:
    async with served.channel(role) as channel:
        for method in AGENT_METHODS:
            with pytest.raises(Denied, match="may not call"):
                await call(channel, method)


async def test_hosts_may_call_what_is_for_agents(served: Served) -> None:
    async with served.channel(Role.HOST) as channel:
        for method in AGENT_METHODS:
            assert await call(channel, method) == []


async def test_users_reach_every_method_that_is_for_them(served: Served) -> None:
    async with served.channel() as channel:
        for method in USER_METHODS:
            # An empty request is wrong, or followed for ever: both have passed the door.
            with contextlib.suppress(InvalidInput, NotFound, TimeoutError):
                await asyncio.wait_for(call(channel, method), 0.2)


async def test_a_certificate_of_another_ca_gets_no_connection(
    served: Served, tmp_path: Path
) -> None:
    create_ca(tmp_path / "ca", "rack")
    issue(tmp_path / "ca", Role.USER, "ann", tmp_path / "ann")
    forged = Identity(
        served.ca / "user" / "ca.crt", tmp_path / "ann" / "tls.crt", tmp_path / "ann" / "tls.key"
    )
    async with served.channel_as(forged) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api_pb2_grpc.SystemServiceStub(channel).Version(
                api_pb2.VersionRequest(), timeout=2
            )
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_without_a_certificate_there_is_no_connection(served: Served) -> None:
    roots = (served.ca / "user" / "ca.crt").read_bytes()
    options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", "controller.rack")]
    credentials = grpc.ssl_channel_credentials(roots)
    async with grpc.aio.secure_channel(served.target, credentials, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api_pb2_grpc.SystemServiceStub(channel).Version(
                api_pb2.VersionRequest(), timeout=2
            )
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("name", ["ann.user.other", "ann.user.rack.example.org", "ann", "rack"])
async def test_a_name_that_is_no_role_of_this_cluster_is_denied(served: Served, name: str) -> None:
    who = certs.issue(served.ca / "ca", name)
    async with served.channel_as(who) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api_pb2_grpc.SystemServiceStub(channel).Version(api_pb2.VersionRequest())
    error = from_rpc(refused.value)
    assert isinstance(error, Denied)
    assert "vecontroller cert" in error.hint


async def test_a_host_can_not_pose_as_the_controller(ca: Path) -> None:
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(identity(ca / "host")))
    await server.start()
    try:
        channel = open_channel(
            f"127.0.0.1:{port}", server=controller_name("rack"), identity=identity(ca / "user")
        )
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await api_pb2_grpc.SystemServiceStub(channel).Version(
                    api_pb2.VersionRequest(), timeout=2
                )
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(0)


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


async def test_a_bug_in_a_handler_tells_the_caller_a_number_and_the_log_the_rest(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    served.rig.relays.open = None  # type: ignore[assignment,method-assign]
    await served.rig.running("web")
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await anext(aiter(stub.Logs(api_pb2.LogsRequest(ve=ref(name="web")))))
    error = from_rpc(failed.value)
    assert isinstance(error, RemoteFailed)
    assert error.message == "internal error"
    number = error.hint.partition("id ")[2].partition(",")[0]
    logged = "".join(capfd.readouterr())
    assert number
    assert number in logged
    assert "NoneType" in logged


async def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    async with served.channel() as channel:
        explode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/veapi.v1.VEService/Explode"
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await explode(b"", timeout=2)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_conflict_keeps_its_kind_and_hint_on_the_way(served: Served) -> None:
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        first = await stub.Create(create_request("web"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Create(create_request("web"))
    error = from_rpc(refused.value)
    assert isinstance(error, Conflict)
    assert first.uid in error.message
    assert error.hint


async def test_a_hundred_creates_over_one_channel_get_a_hundred_addresses(served: Served) -> None:
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        ves = await asyncio.gather(*(stub.Create(create_request(f"ve-{n}")) for n in range(100)))
    assert len({ve.status.addresses[0] for ve in ves}) == 100
    assert len({ve.uid for ve in ves}) == 100


async def next_change(watch) -> api_pb2.VEChange:
    change = await watch.read()
    assert isinstance(change, api_pb2.VEChange)
    return change


async def test_a_watch_follows_and_leaves_nothing_behind_when_its_client_goes(
    served: Served,
) -> None:
    subscriptions = served.rig.topic._subscriptions
    before = len(subscriptions)
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        watch = stub.Watch(api_pb2.WatchVEsRequest(names=["web"]))
        assert (await next_change(watch)).kind == api_pb2.VEChange.KIND_SYNCED
        await stub.Create(create_request("web"))
        assert (await next_change(watch)).ve.name == "web"
        assert len(subscriptions) == before + 1
        watch.cancel()
        await eventually(lambda: len(subscriptions) == before)


async def test_a_reader_that_stalls_is_cut_off_with_a_reason(ca: Path) -> None:
    async with serving(ca, stall_s=0.3) as served:
        subscriptions = served.rig.topic._subscriptions
        before = len(subscriptions)
        labels = {f"k{n}": "v" * 60 for n in range(60)}
        for n in range(100):
            await served.rig.ve.Create(create_request(f"ve-{n}", labels=labels), NO_CONTEXT)
        async with served.narrow_channel() as channel:
            watch = api_pb2_grpc.VEServiceStub(channel).Watch(api_pb2.WatchVEsRequest())
            await watch.read()
            await eventually(lambda: len(subscriptions) == before + 1)
            await eventually(lambda: len(subscriptions) == before)
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                while await watch.read() is not grpc.aio.EOF:
                    pass
        error = from_rpc(ended.value)
        assert isinstance(error, TimedOut)
        assert error.hint


async def test_other_calls_go_on_while_a_reader_stalls(served: Served) -> None:
    labels = {f"k{n}": "v" * 60 for n in range(60)}
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        for n in range(100):
            await served.rig.ve.Create(create_request(f"ve-{n}", labels=labels), NO_CONTEXT)
        watch = stub.Watch(api_pb2.WatchVEsRequest())
        await watch.read()
        ve: types_pb2.VE = await asyncio.wait_for(stub.Create(create_request("web")), 5)
        assert ve.uid
        watch.cancel()
