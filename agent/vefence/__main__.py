"""`python -m vefence`."""

from vefence.main import main

main()
