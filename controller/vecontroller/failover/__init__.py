"""What becomes of VEs whose host is lost (DESIGN 6).

`judge` says of each VE whether it may be moved now, and why not; `brakes` what holds all of them or one of them back;
`moving` what a move is in the store; `moves` is the loop that does it.
"""
