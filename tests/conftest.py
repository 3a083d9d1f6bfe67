"""Before anything imports grpc: with fork support on, children spawned under load die."""

import os

from hypothesis import settings

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# How many examples a property is tried with: few while one works, many in `make test`
# (pytest --hypothesis-profile=ci). Tests name no number of their own. No deadline: speed is
# never asserted.
settings.register_profile("default", max_examples=10, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None)
settings.load_profile("default")
