"""Chaos on real processes: 3 etcd members, 3 controllers and 5 hosts in namespaces, with VEs that hold kernel locks.

python -m chaos run --seed 7 --rounds 200     every case, then random rounds; the seed names the steps
python -m chaos run --cases C4,C6 --rounds 0  some cases
"""
