"""A store that was restored knows nothing of what came after its backup: until an operator confirms it, nothing is changed."""

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


def refusal() -> Conflict:
    return Conflict(RESTORED, hint=HINT)
