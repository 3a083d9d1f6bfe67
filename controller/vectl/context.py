"""Which cluster, as whom: contexts.toml of the user's configuration folder.

current = "rack"
[contexts.rack]
endpoint = "unix:/run/verack/controller.sock"   # or host:port; or several: endpoints = ["10.0.0.1:7443", ...]
cluster = "rack"
ca = "ca.crt"      # paths are relative to this file
cert = "tls.crt"
key = "tls.key"
project = "default"
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from veapi.errors import InvalidInput

_SETUP_HINT = (
    "run `make rack` for a rack on this machine, or write {path} (docs/reference/vectl.md)"
)
_NEEDED = ("cluster", "ca", "cert", "key")
_FIELDS = ("endpoint", "endpoints", *_NEEDED, "project")
MAX_ENDPOINTS = 16


@dataclass(frozen=True, slots=True)
class Context:
    """Where to (each `host:port` or `unix:/path`), as whom, and the project that is meant when none is named."""

    name: str
    endpoints: tuple[str, ...]
    cluster: str
    ca: Path
    cert: Path
    key: Path
    project: str = "default"

    @property
    def endpoint(self) -> str:
        """All of them, for people."""
        return ", ".join(self.endpoints)


def context_path(environ: Mapping[str, str]) -> Path:
    """Where contexts.toml is."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    return Path(base) / "vectl" / "contexts.toml"


def load(
    *,
    name: str | None = None,
    endpoint: str | None = None,
    project: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Context:
    """The context named here, by VECTL_CONTEXT or by `current`; `endpoint` may be several, with commas.

    InvalidInput says what is missing and where.
    """
    path = context_path(environ)
    document = _read(path)
    found = _choose(document, name or environ.get("VECTL_CONTEXT") or "", path)
    given = _endpoints(endpoint.split(","), "--endpoint") if endpoint else found.endpoints
    return replace(found, endpoints=given, project=project or found.project)


def _read(path: Path) -> dict[str, object]:
    import tomllib  # noqa: PLC0415  # not for --help

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        hint = _SETUP_HINT.format(path="that file")
        raise InvalidInput(f"there is no context: {path} does not exist", hint=hint) from None
    except OSError as error:
        raise InvalidInput(
            f"can't read {path}: {error.strerror}", hint="check who owns it, and its mode"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}", hint="mend that line") from None


def _choose(document: Mapping[str, object], wanted: str, path: Path) -> Context:
    for field in document:
        if field not in {"current", "contexts"}:
            raise _unknown(field, path, "current and [contexts.NAME]")
    contexts = document.get("contexts", {})
    if not isinstance(contexts, dict) or not contexts:
        raise InvalidInput(f"{path} holds no context", hint=_SETUP_HINT.format(path="one"))
    name = wanted or str(document.get("current", "")) or _only(contexts, path)
    fields = contexts.get(name)
    if not isinstance(fields, dict):
        raise InvalidInput(
            f"there is no context {name} in {path}", hint=f"there are: {', '.join(contexts)}"
        )
    return _context(name, fields, path)


def _only(contexts: Mapping[str, object], path: Path) -> str:
    if len(contexts) == 1:
        return next(iter(contexts))
    raise InvalidInput(
        f"{path} does not say which context is the current one",
        hint=f'add current = "NAME", or use --context; there are: {", ".join(contexts)}',
    )


def _context(name: str, fields: Mapping[str, object], path: Path) -> Context:
    where = f"{path}: contexts.{name}"
    for field in fields:
        if field not in _FIELDS:
            raise _unknown(f"contexts.{name}.{field}", path, ", ".join(_FIELDS))
    texts = {field: _text(fields, field, where) for field in _NEEDED}
    files = {field: _file(texts[field], path) for field in ("ca", "cert", "key")}
    project = _text(fields, "project", where) if fields.get("project") else "default"
    return Context(
        name=name,
        endpoints=_named_endpoints(fields, where),
        cluster=texts["cluster"],
        project=project,
        **files,
    )


def _named_endpoints(fields: Mapping[str, object], where: str) -> tuple[str, ...]:
    """Of `endpoint`, of `endpoints`, or both."""
    several = fields.get("endpoints", [])
    alone = not several or "endpoint" in fields
    first = [_text(fields, "endpoint", where)] if alone else []
    if not isinstance(several, list) or not all(isinstance(each, str) for each in several):
        raise InvalidInput(
            f"{where}.endpoints is not a list of texts", hint='e.g. ["10.0.0.1:7443"]'
        )
    return _endpoints([*first, *several], f"{where}.endpoints")


def _endpoints(texts: Sequence[str], where: str) -> tuple[str, ...]:
    """Each once, in their order."""
    found = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not 1 <= len(found) <= MAX_ENDPOINTS:
        raise InvalidInput(
            f"{where}: {len(found)} addresses; must be 1 to {MAX_ENDPOINTS}",
            hint="name the controllers: host:port or unix:/path",
        )
    return found


def _text(fields: Mapping[str, object], field: str, where: str) -> str:
    value = fields.get(field)
    if not value:
        needed = ", ".join(("endpoint or endpoints", *_NEEDED))
        raise InvalidInput(f"{where}.{field} is missing", hint=f"a context needs {needed}")
    if not isinstance(value, str):
        raise InvalidInput(f"{where}.{field} is not a text", hint="put it in quotes")
    return value


def _file(text: str, path: Path) -> Path:
    return path.parent / Path(text).expanduser()


def _unknown(field: str, path: Path, known: str) -> InvalidInput:
    return InvalidInput(f"{path}: unknown field {field}", hint=f"known fields: {known}")
