"""A store that was restored knows nothing of what came after its backup: until an operator confirms it, nothing is changed."""

import msgspec

from veapi.errors import Conflict
from veapi.model import Cluster
from vecontroller.view import View

RESTORED = "the store was restored and nobody has confirmed it"
HINT = "look at what would change, and confirm: `vectl cluster confirm`"
REASON = "Unconfirmed"


def is_confirmed(cluster: Cluster) -> bool:
    return cluster.confirmed_incarnation == cluster.incarnation


def is_unconfirmed(view: View) -> bool:
    """Nothing that a VE, its disk or its place depends on may be changed now."""
    return view.cluster is not None and not is_confirmed(view.cluster.value)


def confirmed(view: View) -> Cluster:
    """The cluster's record, which must be there, once an operator has confirmed the store.

    What hosts have said of their fences is of before the backup: VEs that it calls armed may have been told to stay since.
    So fences only count on hosts that confirm them anew.
    """
    assert view.cluster is not None
    record = view.cluster.value
    told = (held.value.fence.arming for held in view.hosts.values())
    return msgspec.structs.replace(
        record,
        confirmed_incarnation=record.incarnation,
        arming=max(record.arming, *told, 0) + 1,
    )


def refusal() -> Conflict:
    return Conflict(RESTORED, hint=HINT)
