"""docs/reference/configuration.md names every field with its default, and its examples work."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args, get_origin

import msgspec
import pytest

from veagent import config as agent
from veapi.errors import InvalidInput
from vecontroller import config as controller
from vectl import context

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "configuration.md"
CONTEXTS = "contexts.toml"
PROGRAMS = {"controller.toml": controller, "agent.toml": agent}


class Row(NamedTuple):
    field: str
    default: str
    example: str


def rows(file: str) -> list[Row]:
    section = PAGE.read_text().split(f"## {file}\n")[1].split("\n## ")[0]
    cells = [
        line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")
    ]
    return [Row(cell[0].strip(" `"), cell[1].strip("` "), cell[2].strip("` ")) for cell in cells]


def fields(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names, and the default as the page writes it."""
    for field in msgspec.structs.fields(kind):
        section = section_of(field.type)
        if section is not None:
            named = ".NAME" if get_origin(field.type) is dict else ""
            yield from fields(section, f"{prefix}{field.name}{named}.")
        else:
            yield f"{prefix}{field.name}", default_of(field)


def section_of(kind: object) -> type[msgspec.Struct] | None:
    kinds = (kind, *get_args(kind))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, msgspec.Struct)), None)


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "*needed*"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return "*none*" if default is None else msgspec.json.encode(default).decode()


def example(file: str) -> str:
    """A file of all the page's examples; tables as TOML has them, dotted."""
    return "".join(f"{row.field} = {row.example}\n" for row in rows(file))


@pytest.mark.parametrize("file", PROGRAMS)
def test_every_field_and_its_default_is_told(file: str) -> None:
    told = {row.field: row.default for row in rows(file)}
    assert told == dict(fields(PROGRAMS[file].Config))


@pytest.mark.parametrize("file", PROGRAMS)
def test_the_examples_work_together(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_text(example(file))
    PROGRAMS[file].load(path)


def test_contexts_are_told(tmp_path: Path) -> None:
    needed = {f"contexts.NAME.{field}" for field in context._NEEDED}
    told = {row.field: row.default for row in rows(CONTEXTS)}
    assert set(told) == {"current", *(f"contexts.NAME.{field}" for field in context._FIELDS)}
    assert {field for field, default in told.items() if default == "*needed*"} == needed
    path = tmp_path / "vectl" / CONTEXTS
    path.parent.mkdir()
    path.write_text(example(CONTEXTS).replace("NAME", "rack"))
    found = context.load(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert (found.cluster, found.project, found.ca) == ("rack", "shop", path.parent / "ca.crt")


@pytest.mark.parametrize("file", PROGRAMS)
def test_the_hint_of_a_wrong_field_names_the_page(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_text("hots = 1\n" + example(file))
    with pytest.raises(InvalidInput, match="hots") as refused:
        PROGRAMS[file].load(path)
    assert str(PAGE.relative_to(PAGE.parents[2])) in refused.value.hint
