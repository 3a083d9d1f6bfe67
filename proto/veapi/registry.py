"""Where an image is in a registry, as people write it."""

import re

from veapi.errors import InvalidInput

SCHEME = "docker://"
SOURCE_LIMIT = 512
_HINT = "write e.g. docker://registry.example.org:5000/team/app:1.2"
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_SOURCE = re.compile(
    rf"{SCHEME}(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{{1,5}})?/)?"
    rf"{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})?",
    re.ASCII,
)


def source(field: str, value: str) -> str:
    """docker://[REGISTRY/]NAME[:TAG|@DIGEST], safe as an argument of a program; InvalidInput else."""
    if len(value) > SOURCE_LIMIT:
        raise InvalidInput(
            f"{field}: has {len(value)} characters; at most {SOURCE_LIMIT}", hint=_HINT
        )
    if _SOURCE.fullmatch(value) is None:
        raise InvalidInput(f"{field}: {value[:80]!r} is no image of a registry", hint=_HINT)
    return value
