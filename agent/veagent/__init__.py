"""The agent of one host: makes its VEs so, watches them, reports."""

import sys

# structlog imports rich where it finds it, for tracebacks in colour: 10 MB on every host for what a log file never shows.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
