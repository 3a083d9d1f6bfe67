"""What may be asked of a group, and the group as it was asked for: pure."""

import re
from collections.abc import Sequence

import msgspec

from veapi import validate
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import REVISIONS_KEPT, Digest, Group, Revision, Template
from veapi.v1 import api_pb2, group_pb2
from vecontroller.api import specs
from vecontroller.groups.member import name_of

MAX_TIME_S = 86_400.0
_OWN = {"run": "`vectl stop` works on each VE", "ip": "each gets one", "host": "use `require`"}
"""Of a spec: what each VE of a group has of its own, and what to do instead."""
_SHARE = re.compile(r"[1-9][0-9]{0,3}|[1-9][0-9]?%|100%", re.ASCII)


def replicas(name: str, number: int) -> int:
    validate.replicas("replicas", number)
    if len(name_of(name, max(0, number - 1))) > validate.NAME_LIMIT:
        raise InvalidInput(
            f"name: {name[:80]!r} leaves no room for a number in the names of its VEs",
            hint=f"a VE's name has at most {validate.NAME_LIMIT} characters",
        )
    return number


def template(message: group_pb2.GroupTemplate) -> Template:
    """What is unset has the default of a new VE. InvalidInput names the field."""
    for field, hint in _OWN.items():
        if getattr(message.spec, field):
            raise InvalidInput(f"spec.template.spec.{field}: not in a template", hint=hint)
    return Template(
        labels=validate.labels("spec.template.labels", message.labels),
        spec=specs.merged(message.spec, specs.DEFAULTS),
    )


def merged(group: Group, message: group_pb2.Group) -> Group:
    """The group with what is set in the message, but for its template."""
    asked = message.spec
    labels = validate.labels("labels", message.labels) or dict(group.labels)
    group = msgspec.structs.replace(group, labels=labels)
    if asked.HasField("replicas"):
        group = msgspec.structs.replace(group, replicas=replicas(group.name, asked.replicas))
    if asked.max_unavailable:
        share = max_unavailable(asked.max_unavailable)
        group = msgspec.structs.replace(group, max_unavailable=share)
    if asked.HasField("min_ready"):
        group = msgspec.structs.replace(group, min_ready_s=_time("min_ready", asked.min_ready, 0.0))
    if asked.HasField("progress_deadline"):
        limit_s = _time("progress_deadline", asked.progress_deadline, 1.0)
        group = msgspec.structs.replace(group, progress_deadline_s=limit_s)
    if asked.HasField("paused"):
        group = msgspec.structs.replace(group, paused=asked.paused)
    return group


def max_unavailable(text: str) -> str:
    if _SHARE.fullmatch(text) is None:
        raise InvalidInput(
            f"spec.max_unavailable: {text[:80]!r} is no number and no share",
            hint="write e.g. 2 or 25%; at least 1",
        )
    return text


def _time(field: str, seconds: float, least: float) -> float:
    if not least <= seconds <= MAX_TIME_S:  # NaN is outside as well
        raise InvalidInput(
            f"spec.{field}: {seconds:g} s; must be {least:g} to {MAX_TIME_S:g}", hint="e.g. 30s"
        )
    return seconds


def with_template(group: Group, new: Template, digest: Digest, now: float, cause: str) -> Group:
    """A new revision, unless it is what the current one says. One that said the same before is taken out."""
    if group.revisions and group.current.template == new:
        return group
    number = 1 + max((each.number for each in group.revisions), default=0)
    others = [each for each in group.revisions if each.template != new]
    revision = Revision(
        number=number, template=new, image_digest=digest, created_at=now, cause=cause
    )
    kept = (*others, revision)[-REVISIONS_KEPT:]
    return msgspec.structs.replace(group, revisions=kept)


def undone(group: Group, number: int, now: float) -> Group:
    """Back to that revision; 0: to the one before the current. Conflict or NotFound: there is none."""
    before = [each for each in group.revisions if each is not group.current]
    if number == group.current.number:
        return group
    found = [each for each in before if number in (0, each.number)]
    if not before:
        raise Conflict(f"group {group.name} has only one revision", hint="nothing to go back to")
    if not found:
        there = ", ".join(str(each.number) for each in before)
        raise NotFound(f"group {group.name} has no revision {number}", hint=f"there are {there}")
    chosen = found[-1]
    cause = f"undo to {chosen.number}"
    return with_template(group, chosen.template, chosen.image_digest, now, cause)


def changes(before: Group | None, after: Group) -> list[api_pb2.FieldChange]:
    """What differs, field by field. `before` None: everything is new."""
    old, new = _texts(before) if before is not None else {}, _texts(after)
    found = [
        api_pb2.FieldChange(field=field, before=old.get(field, ""), after=value)
        for field, value in new.items()
        if old.get(field, "") != value
    ]
    was = before.current.template if before is not None else None
    now = after.current.template
    inner = specs.changes(
        was.spec if was is not None else None,
        now.spec,
        dict(was.labels) if was is not None else {},
        dict(now.labels),
    )
    return [*found, *_within(inner)]


def _within(inner: Sequence[api_pb2.FieldChange]) -> list[api_pb2.FieldChange]:
    """As fields of the template."""
    return [
        api_pb2.FieldChange(
            field=f"spec.template.{each.field.removeprefix('metadata.')}",
            before=each.before,
            after=each.after,
        )
        for each in inner
        if each.field.removeprefix("spec.") not in _OWN
    ]


def _texts(group: Group) -> dict[str, str]:
    return {
        "metadata.labels": ",".join(
            f"{key}={value}" for key, value in sorted(group.labels.items())
        ),
        "spec.replicas": str(group.replicas),
        "spec.max_unavailable": group.max_unavailable,
        "spec.min_ready": f"{group.min_ready_s:g}s",
        "spec.progress_deadline": f"{group.progress_deadline_s:g}s",
        "spec.paused": "true" if group.paused else "false",
    }
