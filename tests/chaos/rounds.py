"""Random rounds: one to three faults each while operators make and delete VEs. A seed and a number give the steps."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

from chaos import checks
from chaos.checks import Ledger
from chaos.faults import Fault, Undo, random_fault
from chaos.rig import IMAGE, SMALL, Rig

MOST_LOAD = 8
"""VEs of the operators that live at once."""


def play(rig: Rig, seed: int, number: int, ledger: Ledger) -> float:
    """One round; seconds until all was as asked again. Raises Violation."""
    dice = random.Random(f"{seed}/{number}")
    before = rig.oracle.starts()
    names = sorted(name for name in before if name.startswith(("stay-", "move-")))
    faults = [random_fault(dice, rig.hosts(), names) for _ in range(dice.choice([1, 1, 2, 2, 3]))]
    rig.say(f"round {number}: " + "; ".join(f"{f.name} for {s:g} s" for f, s in faults))
    excused = {name for f, _ in faults if f.lost for name in rig.on(f.lost)}
    with ThreadPoolExecutor(2) as pool:
        work = pool.submit(operate, rig, dice.random(), number, ledger)
        _strike(rig, faults, dice)
        rig.mend()
        took = checks.converged(rig)
        work.result()
    took = max(took, checks.converged(rig))
    crashed = excused | {f.crashed for f, _ in faults}
    checks.stays_untouched(rig, before, crashed=crashed)
    checks.nothing_lost(rig, ledger, [ve["name"] for ve in rig.ves() or ()])
    rig.say(f"round {number}: all is as asked after {took:.1f} s")
    return took


def _strike(rig: Rig, faults: list[tuple[Fault, float]], dice: random.Random) -> None:
    """They begin within 2 s of each other; each is undone when its time is over."""
    undo: list[tuple[float, Undo]] = []
    for fault, lasts_s in faults:
        try:
            heal = fault.strike(rig)
        except AssertionError as error:
            rig.say(f"  {fault.name}: not now ({str(error)[:120]})")
            continue
        undo.append((time.monotonic() + lasts_s, heal))
        time.sleep(dice.random() * 2)
    for due, heal in sorted(undo, key=lambda pair: pair[0]):
        time.sleep(max(0.0, due - time.monotonic()))
        heal()


def operate(rig: Rig, seed: float, number: int, ledger: Ledger) -> None:
    """Makes two VEs, and deletes the oldest of many. What was answered is written down."""
    dice = random.Random(seed)
    for turn in range(2):
        name, policy = f"op-{number}-{turn}", dice.choice(["stay", "recreate"])
        asked = ("create", name, "--image", IMAGE, *SMALL, "--on-host-loss", policy)
        done = rig.vectl(*asked, "--detach", "--timeout", "60s")
        (ledger.there if done.code == 0 else ledger.unknown).add(name)
    for name in sorted(ledger.there, key=_age)[:-MOST_LOAD]:
        ledger.there.discard(name)
        ledger.unknown.add(name)
        if rig.vectl("delete", "--purge", "--yes", name, "--timeout", "60s").code == 0:
            ledger.unknown.discard(name)
            ledger.gone.add(name)


def _age(name: str) -> tuple[int, int]:
    _, number, turn = name.split("-")
    return int(number), int(turn)
