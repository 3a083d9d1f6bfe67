"""Cgroups of VEs: limits that outlive restarts, usage, and what is left when something died half-way.

The naive way lets LXC write the limits into the folder that it makes for a VE. That folder goes with every restart, and
the limits that were changed since come back as they were at the start. So the agent makes `<root>/ve/<uid>` in every
hierarchy and sets the limits there; LXC works one level below, in `ct`, which it may remove as it likes. Names are
fixed, so a leftover folder makes the next start fail: that also keeps a root from running twice, and `sweep` clears it.
"""

from veagent.cgroup.cgroups import Cgroups
from veagent.cgroup.files import Files
from veagent.cgroup.usage import Usage

__all__ = ["Cgroups", "Files", "Usage"]
