"""Who may call what: a role for each service. What has no row is denied to everybody.

Roles come from the caller's certificate, which gRPC has verified against the cluster's CA.
"""

from veapi.channel import Caller, Role
from veapi.errors import Denied

_USERS = frozenset((Role.USER,))
_HOSTS = frozenset((Role.HOST,))
ALLOWED: dict[str, frozenset[Role]] = {
    "veapi.v1.VEService": _USERS,
    "veapi.v1.HostService": _USERS,
    "veapi.v1.ImageService": _USERS,
    "veapi.v1.ProjectService": _USERS,
    "veapi.v1.OrphanService": _USERS,
    "veapi.v1.HostLifeService": _USERS,
    "veapi.v1.SwitchService": _USERS,
    "veapi.v1.ClusterService": _USERS,
    "veapi.v1.GroupService": _USERS,
    "veapi.v1.SchedulerService": _USERS,
    "veapi.v1.PlanService": _USERS,
    "veapi.v1.SimulationService": _USERS,
    "veapi.v1.SystemService": _USERS,
    "veapi.v1.AgentService": _HOSTS,
    "veapi.v1.PeerService": frozenset(),  # served by agents only
}
"""Roles by the full name of the service."""


def authorize(caller: Caller, method: str) -> None:
    """Denied unless the caller's role may call the method, e.g. `/veapi.v1.VEService/Get`."""
    service = method.strip("/").partition("/")[0]
    allowed = ALLOWED.get(service, frozenset())
    if caller.role not in allowed:
        who = f"{caller.role.value} {caller.name}".strip()
        roles = " or ".join(sorted(role.value for role in allowed)) or "nobody here"
        raise Denied(
            f"{who} may not call {service or 'this'}",
            hint=f"it is for: {roles}; use a certificate of that role",
        )
