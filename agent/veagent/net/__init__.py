"""The host's part of the overlay: bridge, VXLAN, gateway, filters, counters.

`network` holds the port's implementation; `wiring` (which links there shall be) and `filters` (which packets may pass)
decide without touching a kernel; `links` alone knows pyroute2, and `nft` alone libnftables.
"""
