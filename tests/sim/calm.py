"""The end of all faults, and of single ones: who was away is there again."""

from typing import TYPE_CHECKING

from sim.host import Host

if TYPE_CHECKING:
    from sim.world import World

LEAST_LEASE_S = 5.0
"""A host's lease (F) that outlives an answer of the store that was lost: DESIGN 6 makes it longer than the loss of a leader."""


def calm(world: "World") -> None:
    """All is well from now on, as far as the world is concerned."""
    world.network.heal_all()
    world.etcd.paused_until = 0.0
    for controller in world.controllers.values():
        controller.settle(loss=_lasting_loss(world))
        controller.process.resume()
        if not controller.process.alive:
            controller.boot(world.loop)
    for host in world.hosts.values():
        _well(world, host)


def mind(world: "World", host: Host) -> None:
    """The promise is for the loss of agent or vefence, not of both for longer than vefence takes to start again."""
    if host.minder is not None and not host.frozen and host.name not in world.network.down:
        host.minder.resume()
        host.boot_fence(world.loop)


def thaw(world: "World", host: Host) -> None:
    """A machine that stood still goes on."""
    if not host.frozen:
        return
    host.frozen = False
    world.checks.fencing.thaws(host)
    for process in (host.minder, host.process):
        if process is not None:
            process.resume()
    mind(world, host)


def _lasting_loss(world: "World") -> float:
    """A store that loses answers now and then is part of the world, but a shorter lease ends fenced VEs with each."""
    return world.story.knobs.loss if world.timing.fence_after_s >= LEAST_LEASE_S else 0.0


def _well(world: "World", host: Host) -> None:
    if host.disk.failing is not None:
        host.disk.failing, host.disk_well_at = None, world.loop.time()
    host.stubborn, host.lazy_s = False, 0.0
    for port in (host.runtime, host.roots, host.wires, host.images):
        port._errors.clear()
    thaw(world, host)
    host.process.resume()
    world.network.power_on(host.name)
    host.boot_fence(world.loop)
    if host.minder is not None:
        host.minder.resume()  # it may have stood still, and what would end that is dropped now
    if not host.process.alive:
        host.boot(world.loop)
