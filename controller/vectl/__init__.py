"""The command line client, and the asyncio client library under it."""
