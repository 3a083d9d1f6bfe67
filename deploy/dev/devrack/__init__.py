"""A rack on one machine: hosts as network namespaces with an agent each, joined by a switch, for people and for tests."""
