"""Runtime, roots, images and network in memory: for laptops, for many hosts in one process, and for tests.

They fail on command, are as slow as they are told to be by the clock that they are given, and need no root.
"""
