"""What may be called while the store was restored and nobody has confirmed it: what changes nothing in the store.

What is not named here is refused meanwhile, so that a new call is safe until somebody thinks of it.
"""

_BY_SERVICE = {
    "VEService": "Get List Watch Exec Push Pull Export Logs ListEvents WatchEvents",
    "HostService": "Get List",
    "ImageService": "Get List",
    "ProjectService": "Get List",
    "OrphanService": "List",
    "GroupService": "Get List Watch",
    "SwitchService": "Status",
    "ClusterService": "Backup Confirm",
    "SchedulerService": "Explain Capacity",
    "PlanService": "Make",
    "SimulationService": "SaveView Simulate",
    "SystemService": "Version",
    "AgentService": "Session Heartbeat Relay",
}
DURING_STANDSTILL = frozenset(
    f"/veapi.v1.{service}/{method}"
    for service, methods in _BY_SERVICE.items()
    for method in methods.split()
)
"""Full names of methods."""
