"""Runs VEs by LXC."""

from veagent.runtime.lxc import LxcRuntime, LxcSettings

__all__ = ["LxcRuntime", "LxcSettings"]
