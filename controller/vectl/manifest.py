"""Manifests: YAML documents that say what VEs shall be.

    kind: VE
    metadata: {name: web, project: default, labels: {tier: web}}
    spec: {image: debian, cpu: 2, memory: 1G, disk: 10G}

    kind: Group
    metadata: {name: web}
    spec: {replicas: 3, template: {labels: {app: web}, spec: {image: debian}}}

Every document is checked before anything is asked of the controller. Errors name source, line and field.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from veapi import limits, schedule, units, validate, wishes
from veapi.errors import InvalidInput
from vectl.lazy import nearest
from vectl.wanted import Wanted, WantedGroup
from vectl.yamltree import SIZE_LIMIT_BYTES, Mapping, Node, Place, Scalar, Sequence, documents

T = TypeVar("T")

FILES_LIMIT = 1000
VES_LIMIT = 10_000
_SUFFIXES = (".yaml", ".yml", ".json")
_EXAMPLE = "a VE is `kind: VE`, `metadata: {name: web}`, `spec: {image: debian}`"
_DOCUMENT = ("kind", "metadata", "spec")
_METADATA = ("name", "project", "labels")
_GROUP_EXAMPLE = (
    "a group is `kind: Group`, `spec: {replicas: 3, template: {spec: {image: debian}}}`"
)


def _cpu(field: str, text: str) -> int:
    return validate.cpu_millis(field, units.parse_cpu(text, field=field) / 1000)


def _memory(field: str, text: str) -> int:
    size = units.parse_size(text, field=field)
    return validate.size_bytes(field, size, validate.MIN_MEMORY_BYTES, validate.MAX_MEMORY_BYTES)


def _disk(field: str, text: str) -> int:
    size = units.parse_size(text, field=field)
    return validate.size_bytes(field, size, validate.MIN_DISK_BYTES, validate.MAX_DISK_BYTES)


def _whole(field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidInput(f"{field}: {text[:80]!r} is not a whole number", hint="write e.g. 512")
    return int(text)


def _weight(most: int) -> Callable[[str, str], int]:
    return lambda field, text: limits.weight(field, _whole(field, text), most)


def _swap(field: str, text: str) -> int:
    return limits.swap_bytes(field, units.parse_size(text, field=field))


def _io(field: str, text: str) -> int:
    return limits.io_bps(field, units.parse_byte_rate(text, field=field))


def _net(field: str, text: str) -> int:
    return limits.net_bps(field, units.parse_bit_rate(text, field=field))


def _flag(field: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidInput(
            f"{field}: {text[:80]!r} is not true or false", hint="write true or false"
        )
    return text == "true"


def _schedule(field: str, text: str) -> str:
    wanted = "" if text.strip().lower() == "none" else text
    return schedule.canonical(schedule.parse(wanted, field=field))


_SPEC: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "image": ("image", validate.image_ref),
    "cpu": ("cpu_millis", _cpu),
    "memory": ("memory_bytes", _memory),
    "memory_bytes": ("memory_bytes", _memory),
    "disk": ("disk_bytes", _disk),
    "disk_bytes": ("disk_bytes", _disk),
    "pids": ("pids", lambda field, text: validate.pids(field, _whole(field, text))),
    "run": ("run", lambda field, text: validate.run(field, text).value),
    "ip": ("ip", validate.ipv4),
    "host": ("host", validate.name),
    "on_host_loss": ("on_host_loss", lambda field, text: validate.on_host_loss(field, text).value),
    "cpu_weight": ("cpu_weight", _weight(limits.MAX_CPU_WEIGHT)),
    "swap": ("swap_bytes", _swap),
    "swap_bytes": ("swap_bytes", _swap),
    "io_weight": ("io_weight", _weight(limits.MAX_IO_WEIGHT)),
    "io_read": ("io_read_bps", _io),
    "io_write": ("io_write_bps", _io),
    "net_in": ("net_in_bps", _net),
    "net_out": ("net_out_bps", _net),
    "snapshots": ("snapshot_schedule", _schedule),
    "priority": ("priority", wishes.read_priority),
}
_GROUP: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "replicas": (
        "replicas",
        lambda field, text: validate.replicas(field, _whole(field, text)),
    ),
    "max_unavailable": ("max_unavailable", lambda _field, text: text),
    "min_ready": ("min_ready_s", lambda field, text: units.parse_duration(text, field=field)),
    "progress_deadline": (
        "progress_deadline_s",
        lambda field, text: units.parse_duration(text, field=field),
    ),
    "paused": ("paused", _flag),
}
_SPEC_FIELDS = (*_SPEC, "env", "command", *wishes.READERS)


def read_all(sources: tuple[str, ...], stdin: BinaryIO) -> list[Wanted]:
    """As `read`, where only VEs are meant: a group is refused."""
    return _ves_alone(_read(sources, stdin))


def read(sources: tuple[str, ...], stdin: BinaryIO) -> list[Wanted | WantedGroup]:
    """What files, folders (their *.yaml, *.yml, *.json) and `-` say, in order. What is named twice is refused."""
    return [wanted for _, wanted in _read(sources, stdin)]


def _read(sources: tuple[str, ...], stdin: BinaryIO) -> list[tuple[Place, Wanted | WantedGroup]]:
    found: dict[tuple[type, str, str], Place] = {}
    wanted: list[tuple[Place, Wanted | WantedGroup]] = []
    for source, content in _contents(sources, stdin):
        for place, each in parse_all(content, source):
            key = (type(each), each.project, each.name)
            if key in found:
                raise place.refuse(f"{each.name} is there twice", f"it was first in {found[key]}")
            found[key] = place
            wanted.append((place, each))
    if sources and not wanted:
        raise InvalidInput(f"no VE in {', '.join(sources)}", hint=_EXAMPLE)
    if len(wanted) > VES_LIMIT:
        raise InvalidInput(f"{len(wanted)} VEs; at most {VES_LIMIT}", hint="split the manifest")
    return wanted


def _ves_alone(found: list[tuple[Place, Wanted | WantedGroup]]) -> list[Wanted]:
    wanted = []
    for place, each in found:
        if isinstance(each, WantedGroup):
            raise place.refuse("kind: Group means nothing here", "write VEs: kind: VE")
        wanted.append(each)
    return wanted


def _contents(sources: tuple[str, ...], stdin: BinaryIO) -> Iterator[tuple[str, bytes]]:
    for source in sources:
        if source == "-":
            yield "stdin", stdin.read(SIZE_LIMIT_BYTES + 1)
        else:
            for path in _paths(Path(source)):
                yield str(path), _content(path)


def _paths(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES and one.is_file())
    if not found or len(found) > FILES_LIMIT:
        raise InvalidInput(
            f"{path} holds {len(found)} manifests; must be 1 to {FILES_LIMIT}",
            hint=f"files end in {', '.join(_SUFFIXES)}; folders in it are not looked at",
        )
    return found


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SIZE_LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"can't read {path}: {error.strerror}", hint="check the name") from None


def parse(content: bytes, source: str) -> list[tuple[Place, Wanted]]:
    """The VEs of one source, with the place of each document. A group is refused."""
    found = parse_all(content, source)
    places = [place for place, _ in found]
    return list(zip(places, _ves_alone(found), strict=True))


def parse_all(content: bytes, source: str) -> list[tuple[Place, Wanted | WantedGroup]]:
    """What one source says, with the place of each document."""
    return [(node.place, _document(node)) for node in documents(content, source)]


def _document(node: Node) -> Wanted | WantedGroup:
    document = _fields(node, "", _DOCUMENT)
    kind = _text(document.values.get("kind"), "kind", document.place)
    if kind not in ("VE", "Group"):
        raise document.places["kind"].refuse(
            f"kind: {kind[:80]!r} is not known", "write kind: VE, or kind: Group"
        )
    return _ve(document) if kind == "VE" else _group(document)


def _group(document: Mapping) -> WantedGroup:
    metadata = _fields(_part(document, "metadata"), "metadata", _METADATA)
    spec = _fields(_part(document, "spec"), "spec", (*_GROUP, "template"))
    part = spec.values.get("template")
    if part is None:
        raise spec.place.refuse("spec.template is missing", _GROUP_EXAMPLE)
    template = _fields(part, "spec.template", ("labels", "spec"))
    ve = _fields(_part(template, "spec"), "spec.template.spec", _SPEC_FIELDS)
    name = _checked(metadata, "metadata", "name", validate.name)
    project = metadata.values.get("project")
    given = {
        target: _checked(spec, "spec", field, check)
        for field, (target, check) in _GROUP.items()
        if field in spec.values
    }
    return WantedGroup(
        name=name,
        project="" if project is None else _checked(metadata, "metadata", "project", validate.name),
        labels=_labels(metadata.values.get("labels")),
        template=Wanted(
            name=name,
            labels=_labels(template.values.get("labels")),
            **_spec(ve),  # type: ignore[arg-type]  # the table gives each field its type
        ),
        **given,  # type: ignore[arg-type]  # as above
    )


def _ve(document: Mapping) -> Wanted:
    metadata = _fields(_part(document, "metadata"), "metadata", _METADATA)
    spec = _fields(_part(document, "spec"), "spec", _SPEC_FIELDS)
    project = metadata.values.get("project")
    return Wanted(
        name=_checked(metadata, "metadata", "name", validate.name),
        project="" if project is None else _checked(metadata, "metadata", "project", validate.name),
        labels=_labels(metadata.values.get("labels")),
        **_spec(spec),  # type: ignore[arg-type]  # the table gives each field its type
    )


def _part(document: Mapping, field: str) -> Node:
    part = document.values.get(field)
    if part is None:
        raise document.place.refuse(f"{field} is missing", _EXAMPLE)
    return part


def _fields(node: Node, path: str, known: tuple[str, ...]) -> Mapping:
    if not isinstance(node, Mapping):
        raise node.place.refuse(f"{path or 'the document'} must be a mapping", _EXAMPLE)
    for key in node.values:
        if key not in known:
            near = nearest(key, list(known))
            meant = f"did you mean {near}? " if near else ""
            field = f"{path}.{key}" if path else key
            raise node.places[key].refuse(
                f"unknown field {field[:120]}", f"{meant}Known here: {', '.join(known)}"
            )
    return node


def _spec(spec: Mapping) -> dict[str, object]:
    values: dict[str, object] = {}
    for field, (target, check) in _SPEC.items():
        if field not in spec.values:
            continue
        if target in values:
            raise spec.places[field].refuse(
                f"spec.{field} says again what another field said", "keep one of them"
            )
        values[target] = _checked(spec, "spec", field, check)
    if "env" in spec.values:
        values["env"] = _env(spec.values["env"])
    if "command" in spec.values:
        values["command"] = _command(spec.values["command"])
    for kind in wishes.READERS:
        if kind in spec.values:
            values[kind] = _wishes(kind, spec.values[kind])
    if "image" not in values:
        raise spec.place.refuse("spec.image is missing", "`vectl image list` shows what there is")
    return {**values, "given": frozenset(values)}


def _env(node: Node) -> dict[str, str]:
    if not isinstance(node, Mapping):
        raise node.place.refuse("spec.env must be a mapping", "write env: {MODE: fast}")
    texts = {key: _text(value, f"spec.env.{key}", node.place) for key, value in node.values.items()}
    return _placed(node, lambda: limits.init_env("spec.env", texts))


def _command(node: Node) -> tuple[str, ...]:
    if not isinstance(node, Sequence):
        raise node.place.refuse("spec.command must be a list", 'write command: [sh, -c, "..."]')
    words = [_text(item, "spec.command", node.place) for item in node.items]
    return _placed(node, lambda: limits.init_command("spec.command", words))


def _wishes(kind: str, node: Node) -> tuple[str, ...]:
    """One text, or a list of them."""
    field = f"spec.{kind}"
    items = node.items if isinstance(node, Sequence) else [node]
    texts = [_text(item, field, node.place) for item in items]
    return _placed(node, lambda: wishes.read(kind, texts))


def _placed(node: Node, check: Callable[[], T]) -> T:
    """What `check` gives; its refusal gets the place."""
    try:
        return check()
    except InvalidInput as error:
        raise node.place.refuse(error.message, error.hint) from None


def _checked(mapping: Mapping, path: str, field: str, check: Callable[[str, str], object]) -> str:
    """The field's value as `check` gives it; its refusal gets the place."""
    full = f"{path}.{field}"
    text = _text(mapping.values.get(field), full, mapping.place)
    try:
        return check(full, text)  # type: ignore[return-value]  # as the table says
    except InvalidInput as error:
        raise mapping.places[field].refuse(error.message, error.hint) from None


def _text(node: Node | None, field: str, place: Place) -> str:
    if node is None:
        raise place.refuse(f"{field} is missing", _EXAMPLE)
    if not isinstance(node, Scalar):
        raise node.place.refuse(f"{field} must be one value", _EXAMPLE)
    if not node.text and not node.quoted:
        raise node.place.refuse(f"{field} is empty", "give it a value, or leave the field out")
    return node.text


def _labels(node: Node | None) -> dict[str, str]:
    if node is None:
        return {}
    if not isinstance(node, Mapping):
        raise node.place.refuse("metadata.labels must be a mapping", "write labels: {tier: web}")
    labels = {}
    for key, value in node.values.items():
        if not isinstance(value, Scalar):
            raise value.place.refuse(f"metadata.labels.{key} must be one value", "write a text")
        labels[key] = value.text
    try:
        return validate.labels("metadata.labels", labels)
    except InvalidInput as error:
        raise node.place.refuse(error.message, error.hint) from None
