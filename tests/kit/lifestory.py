"""The life of a VE, with all that can be asked of it: for agents that die while they carry it out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kit.agenthost import U1, U2, entry
from veapi.model import Action, RootWish, SetEntry, SnapshotWish

_A, _B = (SnapshotWish(tag=tag, seq=seq, created_at=1.0) for seq, tag in enumerate("ab", start=1))
_WITHOUT_A = (msgspec.structs.replace(_A, deleting=True), _B)


@dataclass(frozen=True)
class Chapter:
    """What is asked of the host at once; generations are given by the story."""

    name: str
    wishes: tuple[SetEntry, ...]


def short_story(**everywhere: object) -> list[Chapter]:
    """For real hosts. `everywhere`: fields that all wishes have, as the image's digest."""
    rebuilt: dict[str, Any] = {"snapshots": (_A,), "root": RootWish(seq=1)}
    kept = {**rebuilt, "snapshots": (msgspec.structs.replace(_A, deleting=True),)}
    chapters = {
        "run": (entry(net_in_bps=8_000_000),),
        "freeze and snapshot": (entry(action=Action.FREEZE, snapshots=(_A,)),),
        "rebuild": (entry(**rebuilt),),
        "keep": (entry(action=Action.KEEP, **rebuilt),),
        "undelete": (entry(ip="10.66.9.9", **kept),),
        "purge": (entry(action=Action.PURGE, **kept),),
    }
    return _told(chapters, everywhere)


def story(**everywhere: object) -> list[Chapter]:
    """All of it."""
    restored = RootWish(seq=2, snapshot="a")
    clone = entry(U2, root=RootWish(from_uid=U1))
    last: dict[str, Any] = {"root": restored, "snapshots": (_A, _B), "restart_seq": 1}
    chapters = {
        "run": (entry(net_in_bps=8_000_000),),
        "freeze": (entry(action=Action.FREEZE),),
        "thaw and snapshot": (entry(snapshots=(_A,)),),
        "restart and snapshot": (entry(snapshots=(_A, _B), restart_seq=1),),
        "rebuild": (entry(snapshots=(_A, _B), restart_seq=1, root=RootWish(seq=1)),),
        "stop": (
            entry(action=Action.STOP, snapshots=(_A, _B), restart_seq=1, root=RootWish(seq=1)),
        ),
        "restore while stopped": (entry(action=Action.STOP, **last),),
        "start with other limits": (entry(memory_bytes=96 << 20, disk_bytes=2 << 30, **last),),
        "clone": (entry(**last), clone),
        "freeze, and stop the clone": (
            entry(action=Action.FREEZE, **last),
            msgspec.structs.replace(clone, action=Action.STOP),
        ),
        "keep, and purge the clone": (
            entry(action=Action.KEEP, **last),
            msgspec.structs.replace(clone, action=Action.PURGE),
        ),
        "undelete": (entry(ip="10.66.9.9", **last | {"snapshots": _WITHOUT_A}),),
        "purge": (entry(action=Action.PURGE, **last),),
    }
    return _told(chapters, everywhere)


def _told(
    chapters: Mapping[str, tuple[SetEntry, ...]], everywhere: dict[str, object]
) -> list[Chapter]:
    return [
        Chapter(name, tuple(_numbered(wish, number, everywhere) for wish in wishes))
        for number, (name, wishes) in enumerate(chapters.items(), start=1)
    ]


def _numbered(wish: SetEntry, number: int, fields: dict[str, object]) -> SetEntry:
    return msgspec.structs.replace(wish, generation=number, run_generation=number, **fields)
