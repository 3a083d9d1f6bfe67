"""Deterministic simulation of a whole cluster: the real cores on a virtual clock, one seed one story.

python -m sim run --count 500        fresh stories; a failing one prints its seed and is shrunk
python -m sim replay SEED            one story, told line by line
python -m sim mutants                every seeded bug, and how many stories it took to find it
"""
