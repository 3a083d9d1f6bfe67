"""A group's VEs as single ones: to think through where they would go."""

from collections.abc import Sequence
from dataclasses import replace

from veapi.errors import InvalidInput
from vectl.manifest import VES_LIMIT
from vectl.wanted import Wanted, WantedGroup


def with_members(found: Sequence[Wanted | WantedGroup]) -> list[Wanted]:
    """VEs as they are; of each group as many as it says, under the names that it gives. InvalidInput: it does not say."""
    wanted: list[Wanted] = []
    for each in found:
        wanted += [each] if isinstance(each, Wanted) else _members(each)
    if len(wanted) > VES_LIMIT:
        raise InvalidInput(f"{len(wanted)} VEs; at most {VES_LIMIT}", hint="simulate in parts")
    return wanted


def _members(group: WantedGroup) -> list[Wanted]:
    if group.replicas is None:
        raise InvalidInput(
            f"group {group.name} does not say how many VEs it has", hint="write e.g. replicas: 3"
        )
    return [
        replace(group.template, name=f"{group.name}-{number}", project=group.project)
        for number in range(group.replicas)
    ]
