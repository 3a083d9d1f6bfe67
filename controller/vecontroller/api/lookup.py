"""Finds what a user names in the view, or says what there is instead."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from veapi import validate
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import VE, Deleted, Digest, HostFacts, HostName, Image, Project, Uid
from veapi.v1 import api_pb2
from vecontroller.api.ports import DEFAULT_PROJECT
from vecontroller.view import Held, View

_SHOWN = 5
_KEPT_HINT = "see `vectl list --deleted`; what was deleted is kept for a time only"
_COMPARED = 1000
"""Names that a wrong one is compared with: it takes some microseconds each."""


def find_ve(view: View, ref: api_pb2.VERef) -> Held[VE]:
    """The VE by name, or by uid alone. Conflict when it is another one, or at another revision, than the caller meant."""
    held = _held_ve(view, _uid(view, ref))
    if ref.resource_version and ref.resource_version != held.mod_revision:
        raise Conflict(
            f"VE {held.value.name} changed: resource_version is {held.mod_revision}, not {ref.resource_version}",
            hint="read it again, and decide again",
        )
    return held


def _uid(view: View, ref: api_pb2.VERef) -> Uid:
    if not ref.name:
        if not ref.uid:
            raise InvalidInput("ve.name: is empty", hint="give the name of a VE")
        return Uid(ref.uid)
    project = ref.project or DEFAULT_PROJECT
    found = view.names.get((project, ref.name))
    if found is None:
        names = [name for in_project, name in view.names if in_project == project]
        raise NotFound(
            f"no VE {ref.name[:80]} in project {project[:80]}",
            hint=_was_deleted(view, project, ref.name)
            or suggestion(ref.name, names)
            or "see `vectl list`, and --project",
        )
    if ref.uid and ref.uid != found.value:
        raise Conflict(
            f"VE {ref.name} is another one now: its uid is {found.value}",
            hint="the VE that you mean was deleted",
        )
    return found.value


def refuse_taken(view: View, project: str, name: str) -> None:
    """Conflict names the VE that has the name."""
    held = view.names.get((project, name))
    if held is None:
        return
    ve = view.ves.get(held.value)
    if ve is not None and ve.value.delete_requested_at is not None:
        raise Conflict(
            f"name {name} is still held in project {project} by VE {held.value}, which is being deleted",
            hint=f"wait until it is gone, or choose another name; see `vectl show {name}`",
        )
    raise Conflict(
        f"name {name} is taken in project {project} by VE {held.value}",
        hint="choose another name, or change that VE with `vectl apply` or `vectl set`",
    )


def find_deleted(view: View, ref: api_pb2.VERef) -> Held[Deleted]:
    """A deleted VE that is kept, by uid or by name. Conflict when several of the name are kept."""
    if ref.uid:
        held = view.deleted.get(Uid(ref.uid))
        if held is None:
            raise NotFound(f"no deleted VE with uid {ref.uid[:80]} is kept", hint=_KEPT_HINT)
        return held
    if not ref.name:
        raise InvalidInput("ve.name: is empty", hint="give the name or the uid of a deleted VE")
    project = ref.project or DEFAULT_PROJECT
    found = kept_as(view, project, ref.name)
    if not found:
        names = {k.value.ve.name for k in view.deleted.values() if k.value.ve.project == project}
        raise NotFound(
            f"no deleted VE {ref.name[:80]} is kept in project {project[:80]}",
            hint=suggestion(ref.name, names) or _KEPT_HINT,
        )
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} deleted VEs of project {project} are called {ref.name}",
            hint=f"name it by its uid: {listed(kept.value.ve.uid for kept in found)}",
        )
    return found[0]


def kept_as(view: View, project: str, name: str) -> list[Held[Deleted]]:
    """The deleted VEs of that name whose roots are kept."""
    return [
        kept
        for kept in view.deleted.values()
        if (kept.value.ve.project, kept.value.ve.name) == (project, name)
    ]


def _held_ve(view: View, uid: Uid) -> Held[VE]:
    held = view.ves.get(uid)
    if held is not None:
        return held
    if any(found.value == uid for found in view.names.values()):
        raise Conflict(
            f"VE {uid} can't be read by this version",
            hint="update this controller; nothing was changed",
        )
    raise NotFound(f"no VE with uid {uid[:80]}", hint="it was deleted; see `vectl list`")


def _was_deleted(view: View, project: str, name: str) -> str:
    if not kept_as(view, project, name):
        return ""
    return f"it was deleted, and is kept: `vectl undelete {name}`, `vectl list --deleted`"


def find_project(view: View, name: str) -> Held[Project]:
    held = view.projects.get(name)
    if held is None:
        raise NotFound(
            f"no project {name[:80]}",
            hint=suggestion(name, view.projects)
            or f"make it with `vectl project create {name[:80]}`",
        )
    return held


def find_image(view: View, ref: str) -> Held[Image]:
    """By tag or digest."""
    tag = view.tags.get(ref)
    held = view.images.get(tag.value if tag is not None else Digest(ref))
    if held is not None:
        return held
    hint = suggestion(ref, view.tags)
    if not hint:
        hint = _there_are("images", view.tags) or "import one with `vectl image import NAME FILE`"
    raise NotFound(f"no image {ref[:140]}", hint=hint)


def find_host(view: View, name: str) -> Held[HostFacts]:
    held = view.hosts.get(HostName(name))
    if held is None:
        hint = suggestion(name, view.hosts) or _there_are("hosts", view.hosts)
        raise NotFound(
            f"no host {name[:80]}", hint=hint or "no host has reported yet: start a veagent"
        )
    return held


def project_of(name: str) -> str:
    """The project that a request means; InvalidInput when it can't be one."""
    return validate.name("project", name) if name else DEFAULT_PROJECT


def suggestion(name: str, names: Iterable[str]) -> str:
    """A question with near names; empty when none is near."""
    near = get_close_matches(name[:140], list(islice(names, _COMPARED)), n=3)
    return f"did you mean {' or '.join(near)}?" if near else ""


def listed(names: Iterable[str]) -> str:
    """`a, b and 3 more`: the first few, in order."""
    ordered = sorted(names)
    more = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _there_are(what: str, names: Iterable[str]) -> str:
    shown = listed(names)
    return f"the {what} are: {shown}" if shown else ""
