"""What is done with a VE while the store that asks was restored and nobody has confirmed it: pure.

Such a store knows nothing of what came after its backup. It may ask to stop, to remove or to start what was moved, deleted or
made anew since. So what runs goes on as it is, what is down stays down, and nothing of any root changes. Only a VE that ended by
itself comes up again, where it ran and as it ran, if the store wants it here too and nobody can have started it elsewhere.
"""

import msgspec

from veagent.fence.gate import FenceOff, is_fenced
from veagent.reconcile import Nothing, Observed, Start, Step, Wait
from veagent.record import VERecord, is_root_stale
from veapi.model import Action, HostSet, SetEntry

UNCONFIRMED = "Unconfirmed"
MESSAGE = "the store was restored and nobody has confirmed it; `vectl cluster confirm` does"
_RUNS = (Action.RUN, Action.FREEZE)


def next_action_unconfirmed(wanted: SetEntry | None, observed: Observed) -> Step:
    """Instead of `reconcile.next_action`. A lease that ran out counts all the same."""
    if wanted is None:
        return Nothing("Orphan")
    if observed.running:
        if observed.fence.doomed:
            return FenceOff()
        return Nothing("Frozen" if observed.frozen else "Running")
    if not comes_up_again(wanted, observed):
        return Nothing(UNCONFIRMED)
    return Wait(observed.wait_s) if observed.wait_s > 0 else Start()


def comes_up_again(wanted: SetEntry, observed: Observed) -> bool:
    """It ran here and was not ended by us, on the root that is here; then as now it is one that stays with its host."""
    record = observed.record
    if record is None or not observed.root or is_root_stale(wanted, record):
        return False
    ran = record.up and not record.off and not record.kept
    last = record.entry or wanted
    shall = all(each.action in _RUNS and not is_fenced(each) for each in (wanted, last))
    return ran and shall


def as_it_ran(wanted: SetEntry, record: VERecord | None) -> SetEntry:
    """By what it is started again: the last that was carried out, not what the store has forgotten of it."""
    return record.entry if record is not None and record.entry is not None else wanted


def with_known_peers(newer: HostSet, held: HostSet | None) -> HostSet:
    """The store may not have heard yet of hosts that VEs talk to: an unconfirmed set takes no peer away."""
    if not newer.unconfirmed or held is None:
        return newer
    peers = {peer.name: peer for peer in (*held.peers, *newer.peers)}
    return msgspec.structs.replace(newer, peers=tuple(peers[name] for name in sorted(peers)))
