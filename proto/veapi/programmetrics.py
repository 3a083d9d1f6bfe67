"""What every program tells Prometheus of itself."""

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector


def program_registry() -> CollectorRegistry:
    """A registry of the program's own, with its process and its Python; never the library's global one."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
