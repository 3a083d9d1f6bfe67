"""May this VE be started elsewhere now? Pure: the view, and what is known of silence, decide. "No" always has a reason.

Safe is only what the host itself has confirmed before it fell silent: that this VE, under this policy, is on the list of a
vefence that lives, goes by the cluster's times and counts the cluster as armed. Then it is dead by the time M is over,
whatever became of the host. What a user or an operator has changed since, the host does not know, so it does not count.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from veapi.model import VE, Cluster, FenceFacts, HostName, OnHostLoss, Placement, Run, Uid, VEStatus
from vecontroller.copies import holds
from vecontroller.incarnation import RESTORED, is_confirmed
from vecontroller.store import keys
from vecontroller.view import Held, View


class Why(StrEnum):
    """Why a VE is not moved, as one word."""

    POLICY_STAY = "PolicyStay"
    DELETING = "Deleting"
    STOPPED = "StoppedByWish"
    NOT_ARMED = "NotArmed"
    NO_FENCE = "NoFence"
    OTHER_TIMES = "OtherTimes"
    DISARMED = "Disarmed"
    MOVES_STOPPED = "MovesStopped"
    UNCONFIRMED = "Unconfirmed"
    SILENCE = "SilenceTooShort"
    NO_IMAGE = "NoImage"
    DAMPED = "MovedTooOften"
    NO_ROOM = "NoHostFits"
    RATE = "TooManyStarts"
    STORE = "StoreAway"
    UNREADABLE = "Unreadable"


class Waits(msgspec.Struct, frozen=True):
    """It is not moved (now). `seconds`: until it may be; None: time alone does not help. `at`: since when, in Unix seconds."""

    why: Why
    message: str
    seconds: float | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class May:
    """It may be moved. All that was read, to be guarded on."""

    ve: Held[VE]
    placement: Held[Placement]
    status: Held[VEStatus] | None


@dataclass(frozen=True, slots=True)
class Known:
    """What the view does not show. `silent_s`: seconds of silence of a host that count; `live`: it answers now.

    `wall`: Unix seconds; `damped_s`: seconds for which a VE that was moved too often waits yet.
    """

    silent_s: Callable[[HostName], float]
    live: Callable[[HostName], bool]
    wall: float
    damped_s: Callable[[Placement, float], float]


def judge(view: View, uid: Uid, known: Known) -> May | Waits:
    """Of a VE that is placed, on a host that does not answer."""
    ve, placement, status = view.ves[uid], view.placements[uid], view.statuses.get(uid)
    host = placement.value.host
    off = powered_off(view, host)
    reasons = (
        of_wish(ve.value),
        _of_store(view, uid, host),
        _of_cluster(view.cluster.value if view.cluster is not None else None),
        *(() if off else _of_fence(view, ve.value, placement.value, status)),
        _of_brake(view.cluster.value if view.cluster is not None else None),
        None if off else _of_silence(view, host, known),
        _of_image(view, ve.value, known),
        _of_damping(placement.value, known),
    )
    first = next((reason for reason in reasons if reason is not None), None)
    return first if first is not None else May(ve, placement, status)


def powered_off(view: View, host: HostName) -> bool:
    """Whether an operator vouches that the host is off: then nothing of it has to be confirmed or waited for."""
    held = view.host_specs.get(host)
    return held is not None and held.value.powered_off_at is not None


def of_wish(ve: VE) -> Waits | None:
    """Why a VE is not to run elsewhere, by what is asked of it; None: it is."""
    if ve.spec.on_host_loss is not OnHostLoss.RECREATE:
        return Waits(Why.POLICY_STAY, "its policy is stay: it waits for its host")
    if ve.delete_requested_at is not None:
        return Waits(Why.DELETING, "it is being deleted")
    if ve.spec.run is Run.STOPPED:
        return Waits(Why.STOPPED, "it shall not run")
    return None


def _of_store(view: View, uid: Uid, host: HostName) -> Waits | None:
    unread = [keys.ve_left(host, uid), keys.ve_status(uid), keys.host_status(host), keys.CLUSTER]
    if any(key in view.quarantined for key in unread) or view.cluster is None:
        return Waits(Why.UNREADABLE, "a value in the store can't be read by this version")
    return None


def _of_fence(
    view: View, ve: VE, placement: Placement, status: Held[VEStatus] | None
) -> Iterator[Waits | None]:
    """What its host has confirmed."""
    yield _of_arming(ve, placement, status)
    facts, cluster = view.hosts.get(placement.host), view.cluster
    if facts is None or cluster is None:
        yield Waits(Why.NO_FENCE, f"host {placement.host} never said whether it can fence VEs")
        return
    yield _of_host(placement.host, facts.value.fence, cluster.value)


def _of_arming(ve: VE, placement: Placement, status: Held[VEStatus] | None) -> Waits | None:
    if status is None or status.value.placement_generation != placement.generation:
        return Waits(Why.NOT_ARMED, "its host never reported it, so it may run there unfenced")
    if not 0 < ve.policy_generation <= status.value.armed_generation:
        return Waits(Why.NOT_ARMED, "its host never confirmed that it is armed under this policy")
    return None


def _of_host(host: HostName, fence: FenceFacts, cluster: Cluster) -> Waits | None:
    if not fence.live:
        return Waits(Why.NO_FENCE, f"vefence did not live on host {host} when that was last heard")
    if fence.timing != cluster.timing:
        return Waits(Why.OTHER_TIMES, f"host {host} did not confirm the cluster's times")
    if fence.arming != cluster.arming:
        return Waits(Why.DISARMED, f"host {host} did not confirm that the cluster is armed again")
    return None


def _of_cluster(cluster: Cluster | None) -> Waits | None:
    """Told before what its host did not confirm: hosts of a disarmed cluster confirm for no VE that it is armed."""
    if cluster is None:
        return None
    if not is_confirmed(cluster):
        return Waits(Why.UNCONFIRMED, f"{RESTORED}; `vectl cluster confirm` does")
    if cluster.disarmed_until is not None:
        return Waits(Why.DISARMED, "the cluster is disarmed; `vectl cluster arm` ends that")
    return None


def _of_brake(cluster: Cluster | None) -> Waits | None:
    if cluster is not None and cluster.moves_stopped:
        return Waits(
            Why.MOVES_STOPPED,
            f"moves are stopped: {cluster.moves_stopped}; `vectl host resume-moves` ends that",
        )
    return None


def _of_silence(view: View, host: HostName, known: Known) -> Waits | None:
    assert view.cluster is not None
    left = view.cluster.value.timing.move_after_s - known.silent_s(host)
    if left <= 0:
        return None
    return Waits(Why.SILENCE, f"it may be moved in {left:.0f} s", seconds=left)


def _of_image(view: View, ve: VE, known: Known) -> Waits | None:
    if any(known.live(host) and holds(view, host, ve.image_digest) for host in view.hosts):
        return None
    return Waits(Why.NO_IMAGE, "no host that answers holds its image")


def _of_damping(placement: Placement, known: Known) -> Waits | None:
    left = known.damped_s(placement, known.wall)
    if left <= 0:
        return None
    return Waits(
        Why.DAMPED, f"it was moved too often lately; it waits for {left:.0f} s more", seconds=left
    )
