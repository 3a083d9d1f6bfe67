"""Before anything imports grpc: with fork support on, children spawned under load die."""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
