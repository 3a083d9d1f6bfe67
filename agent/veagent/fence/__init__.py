"""The agent's side of fencing (DESIGN 6): no VE of a fenced policy runs here without a lease and a living vefence.

`hold` is what the host may count on, `desk` tells vefence and asks it, `gate` is what a VE's worker makes of it.
"""
