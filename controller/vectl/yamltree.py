"""YAML as a tree of texts that know their lines.

The naive way, `safe_load`, loses lines, takes the last of two equal keys, turns `on` into a boolean, and expands
aliases without end. Here parser events become plain nodes: no object is ever constructed, a scalar stays the text that
was written, and aliases, tags, deep nesting and large inputs are refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from veapi.errors import InvalidInput

SIZE_LIMIT_BYTES = 4 << 20
DEPTH_LIMIT = 16
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HINT = "manifests are plain YAML: see docs/reference/vectl.md"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}"

    def refuse(self, message: str, hint: str) -> InvalidInput:
        return InvalidInput(f"{self}: {message}", hint=hint)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text; empty and not `quoted` when nothing was written."""

    place: Place
    text: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    place: Place
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Values by key, and the place of each key."""

    place: Place
    values: dict[str, "Node"]
    places: dict[str, Place]


Node = Scalar | Sequence | Mapping


def documents(content: bytes, source: str) -> list[Node]:
    """The documents that are not empty. InvalidInput names source and line."""
    if len(content) > SIZE_LIMIT_BYTES:
        raise InvalidInput(
            f"{source}: {len(content)} bytes; at most {SIZE_LIMIT_BYTES}",
            hint="split it into several files",
        )
    try:
        return list(_Builder(yaml.parse(content, Loader=_LOADER), source).documents())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Place(source, line).refuse(
            f"not YAML: {error.problem or error.context}", "mend that line; often it is the indent"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{source}, line 1: not YAML: {str(error)[:200]}", hint="manifests are UTF-8 text"
        ) from None


def _place(source: str, event: yaml.Event) -> Place:
    return Place(source, event.start_mark.line + 1 if event.start_mark else 1)


class _Builder:
    def __init__(self, events: Iterator[yaml.Event], source: str) -> None:
        self._events = events
        self._source = source

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                node = self._node(next(self._events), 1)
                if not (isinstance(node, Scalar) and not node.text and not node.quoted):
                    yield node

    def _node(self, event: yaml.Event, depth: int) -> Node:
        place = _place(self._source, event)
        if depth > DEPTH_LIMIT:
            raise place.refuse(f"nested deeper than {DEPTH_LIMIT}", _HINT)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise place.refuse("anchors and aliases are not allowed", "write the values out")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise place.refuse(f"the tag {tag} is not allowed", "remove it")
        match event:
            case yaml.MappingStartEvent():
                return self._mapping(place, depth)
            case yaml.SequenceStartEvent():
                return self._sequence(place, depth)
            case _:
                assert isinstance(event, yaml.ScalarEvent)
                return Scalar(place, event.value, quoted=bool(event.style))

    def _sequence(self, place: Place, depth: int) -> Sequence:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Sequence(place, tuple(items))

    def _mapping(self, place: Place, depth: int) -> Mapping:
        values: dict[str, Node] = {}
        places: dict[str, Place] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise key.place.refuse("a key must be a text", _HINT)
            if key.text in values:
                first = places[key.text].line
                raise key.place.refuse(
                    f"{key.text} is there twice", f"it was first set in line {first}"
                )
            values[key.text] = self._node(next(self._events), depth + 1)
            places[key.text] = key.place
        return Mapping(place, values, places)
