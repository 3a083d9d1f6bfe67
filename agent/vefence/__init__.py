"""The host's executioner: a process so small that it goes on when the agent, the network or the disks do not.

It needs the standard library and nothing else, opens no socket, and reads no disk once it runs.
"""
