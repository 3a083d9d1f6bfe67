"""A VE of a group as the group's decisions see it, and how it is compared with a template. Pure."""

import re

import msgspec

from veapi.model import VE, Group, Revision, Run, Spec, Template, Uid, Value, VEState

Key = tuple[str, str]
"""Of a group: its project and its name."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)


class Member(Value, frozen=True, kw_only=True):
    """`available`: it runs as asked, and has for long enough; else `reason` and `why` say what it lacks."""

    ordinal: int
    ve: VE
    available: bool
    state: VEState = VEState.RUNNING
    host: str = ""
    reason: str = ""
    why: str = ""

    @property
    def uid(self) -> Uid:
        return self.ve.uid

    @property
    def name(self) -> str:
        return self.ve.name

    @property
    def leaving(self) -> bool:
        """It is being deleted, and has its name until it is gone."""
        return self.ve.delete_requested_at is not None

    @property
    def held_down(self) -> bool:
        """Somebody wants it stopped or frozen."""
        return self.ve.spec.run is not Run.RUNNING


def name_of(group: str, ordinal: int) -> str:
    return f"{group}-{ordinal}"


def ordinal_of(group: str, name: str) -> int | None:
    """None: not a name that the group gives."""
    head, _, tail = name.rpartition("-")
    return int(tail) if head == group and _NUMBER.fullmatch(tail) else None


def fits(ve: VE, template: Template) -> bool:
    """Whether all that the template says is asked of the VE."""
    return ve.spec == own_spec(ve, template) and dict(ve.labels) == dict(template.labels)


def own_spec(ve: VE, template: Template) -> Spec:
    """The template's spec, with what is the VE's own."""
    return msgspec.structs.replace(template.spec, run=ve.spec.run, ip=ve.spec.ip, host=ve.spec.host)


def current(member: Member, revision: Revision) -> bool:
    """It has that revision, and nobody changed it since."""
    same = member.ve.group_revision == revision.number
    return same and fits(member.ve, revision.template)


def there(group: Group, members: "list[Member]") -> "list[Member]":
    """Those that count: within the number of replicas, and not on their way out."""
    return [each for each in members if each.ordinal < group.replicas and not each.leaving]
