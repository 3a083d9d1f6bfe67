"""Programs of their own that enter a VE, run by `python -I -S`. They import the standard library and each other, no more.

The agent has threads, so it can't enter a namespace itself. Everything is imported before a VE is entered: what would
be imported afterwards would be the VE's.
"""
