"""The agent of one host: makes its VEs so, watches them, reports."""
