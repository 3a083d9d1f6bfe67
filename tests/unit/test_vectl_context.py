"""Which cluster, as whom."""

from pathlib import Path

import pytest

from veapi.errors import InvalidInput
from vectl.context import context_path, load

RACK = """
current = "rack"
[contexts.rack]
endpoint = "unix:/run/c.sock"
cluster = "rack"
ca = "ca.crt"
cert = "/etc/tls.crt"
key = "~/tls.key"
[contexts.far]
endpoint = "far:7443"
cluster = "far"
ca = "a"
cert = "b"
key = "c"
project = "shop"
"""


def environ(folder: Path, text: str | None, **more: str) -> dict[str, str]:
    if text is not None:
        (folder / "vectl").mkdir()
        (folder / "vectl" / "contexts.toml").write_text(text)
    return {"XDG_CONFIG_HOME": str(folder), "HOME": str(folder), **more}


def test_the_current_one_is_taken_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    found = load(environ=environ(tmp_path, RACK))
    assert (found.name, found.endpoint, found.project) == ("rack", "unix:/run/c.sock", "default")
    assert found.ca == tmp_path / "vectl" / "ca.crt"
    assert found.cert == Path("/etc/tls.crt")
    assert found.key == Path.home() / "tls.key"


def test_the_variable_beats_the_file_and_the_option_beats_both(tmp_path: Path) -> None:
    env = environ(tmp_path, RACK, VECTL_CONTEXT="far")
    assert load(environ=env).name == "far"
    assert load(environ=env).project == "shop"
    assert load(name="rack", environ=env).name == "rack"
    here = load(endpoint="x:1", project="p", environ=env)
    assert (here.endpoint, here.project, here.cluster) == ("x:1", "p", "far")


def test_several_controllers_may_be_named_in_the_file_and_by_the_option(tmp_path: Path) -> None:
    text = RACK.replace('endpoint = "far:7443"', 'endpoints = ["a:1", "b:1", "a:1"]')
    env = environ(tmp_path, text, VECTL_CONTEXT="far")
    assert load(environ=env).endpoints == ("a:1", "b:1")
    assert load(environ=env).endpoint == "a:1, b:1"
    both = text.replace("endpoints", 'endpoint = "unix:/z"\nendpoints')
    (tmp_path / "vectl" / "contexts.toml").write_text(both)
    assert load(environ=env).endpoints == ("unix:/z", "a:1", "b:1")
    assert load(endpoint="x:1, unix:/y,", environ=env).endpoints == ("x:1", "unix:/y")


def test_a_single_context_needs_no_current(tmp_path: Path) -> None:
    text = RACK.replace('current = "rack"', "").split("[contexts.far]")[0]
    assert load(environ=environ(tmp_path, text)).name == "rack"


def test_without_xdg_it_is_in_the_home_folder() -> None:
    assert context_path({"HOME": "/home/ann"}) == Path("/home/ann/.config/vectl/contexts.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["contexts.toml does not exist"]),
        ("", ["holds no context"]),
        ("a = [", ["is not TOML"]),
        ("colour = 1", ["unknown field colour"]),
        (RACK.replace('"rack"', '"none"', 1), ["there is no context none"]),
        (RACK.replace('current = "rack"', ""), ["which context"]),
        (RACK.replace("endpoint", "endpiont", 1), ["unknown field contexts.rack.endpiont"]),
        (RACK.replace('cluster = "rack"', ""), ["contexts.rack.cluster is missing"]),
        (RACK.replace('ca = "ca.crt"', "ca = 1"), ["contexts.rack.ca is not a text"]),
        (RACK.replace("endpoint =", "endpoints =", 1), ["rack.endpoints is not a list"]),
        (RACK.replace('"unix:/run/c.sock"', "[]").replace("endpoint", "endpoints", 1), ["missing"]),
        (RACK.replace('endpoint = "unix:/run/c.sock"', 'endpoints = [" "]'), ["1 to 16"]),
    ],
)
def test_a_refusal_names_the_file_and_helps(
    text: str | None, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput) as refused:
        load(environ=environ(tmp_path, text))
    assert refused.value.hint
    for word in ["contexts.toml", *words]:
        assert word in refused.value.message
