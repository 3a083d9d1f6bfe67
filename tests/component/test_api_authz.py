import pytest

from veapi.channel import Caller, Role
from veapi.errors import Denied
from veapi.v1 import (
    api_pb2,
    cluster_pb2,
    group_pb2,
    hostlife_pb2,
    plan_pb2,
    scheduler_pb2,
    session_pb2,
    simulate_pb2,
)
from vecontroller.api.authz import ALLOWED, authorize

SERVICES = [
    service.full_name
    for module in (
        api_pb2,
        cluster_pb2,
        group_pb2,
        hostlife_pb2,
        plan_pb2,
        scheduler_pb2,
        session_pb2,
        simulate_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
]
AGENTS_ONLY = "veapi.v1.AgentService"
NOBODYS = "veapi.v1.PeerService"


def test_every_service_has_a_row_and_every_row_a_service() -> None:
    assert sorted(SERVICES) == sorted(ALLOWED)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("role", Role)
def test_users_and_hosts_have_services_of_their_own_and_nobody_has_both(
    service: str, role: Role
) -> None:
    expected = {AGENTS_ONLY: Role.HOST, NOBODYS: None}.get(service, Role.USER)
    caller = Caller(role, "x", "rack")
    if role is expected:
        authorize(caller, f"/{service}/Any")
        return
    with pytest.raises(Denied, match=service) as refused:
        authorize(caller, f"/{service}/Any")
    assert refused.value.hint


@pytest.mark.parametrize(
    "method", ["", "/", "/x", "veapi.v1.VEServiceX/Get", "/veapi.v1/VEService"]
)
@pytest.mark.parametrize("role", Role)
def test_what_is_unknown_is_denied(method: str, role: Role) -> None:
    with pytest.raises(Denied):
        authorize(Caller(role, "x", "rack"), method)
