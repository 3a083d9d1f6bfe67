from pathlib import Path

import msgspec
import pytest

from veagent.imageconfig import with_image
from veagent.ports import StartPlan
from veagent.storage.oci import Descriptor, _Run, run_config
from veapi import registry
from veapi.errors import InvalidInput
from veapi.model import ImageConfig, Limits, Uid

IMAGE = ImageConfig(command=("/app", "serve"), env={"A": "image", "B": "b"}, user="web", cwd="/srv")


def plan(**changes):
    return StartPlan(
        uid=Uid("u"),
        hostname="h",
        root=Path("/r"),
        id_base=1 << 20,
        limits=Limits(),
        nic=None,
        **changes,
    )


def test_a_ve_runs_what_its_image_says():
    made = with_image(plan(), IMAGE)
    assert (made.command, made.user, made.cwd) == (("/app", "serve"), "web", "/srv")
    assert made.environment == {"A": "image", "B": "b"}


def test_what_was_asked_of_the_ve_counts_more():
    made = with_image(plan(command=("/bin/sh",), environment={"A": "spec"}), IMAGE)
    assert made.command == ("/bin/sh",)
    assert made.environment == {"A": "spec", "B": "b"}
    assert (made.user, made.cwd) == ("web", "/srv")


def test_an_image_that_says_nothing_changes_nothing():
    assert with_image(plan(), ImageConfig()) == plan()


def test_null_fields_of_an_oci_config_are_empty_ones():
    import msgspec  # noqa: PLC0415

    from veagent.storage import oci  # noqa: PLC0415

    text = b'{"User":null,"Env":null,"Entrypoint":null,"Cmd":null,"WorkingDir":null}'
    assert run_config(msgspec.json.decode(text, type=oci._Run)) == ImageConfig()
    described = b'{"mediaType":"a","digest":"b","size":1,"unknown":{"x":[1]}}'
    assert msgspec.json.decode(described, type=Descriptor).size == 1


@pytest.mark.parametrize(
    "value",
    [
        "docker://debian",
        "docker://debian:12",
        "docker://registry.example.org/a/b/c:v1.2_3",
        "docker://127.0.0.1:5000/app",
        "docker://localhost:5000/a__b--c.d",
        "docker://h/app@sha256:" + "0" * 64,
    ],
)
def test_sources_as_people_write_them(value):
    assert registry.source("source", value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", "debian", "docker://", "docker://a b", "docker://A", "docker:///a", "docker://a//b"),
        *("docker://a:", "docker://a@sha256:0", "docker://x\n", "oci:/x", "docker://" + "a" * 600),
    ],
)
def test_what_is_no_source_is_refused_with_an_example(value):
    with pytest.raises(InvalidInput, match="source") as refused:
        registry.source("source", value)
    assert "docker://" in refused.value.hint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("User", "9" * 5000),
        ("User", "a\nb"),
        ("WorkingDir", "/" + "a" * 4095),
        ("WorkingDir", "/srv "),
        ("WorkingDir", "srv"),
        ("WorkingDir", "/a\0b"),
        ("Env", ["A=b\nc"]),
        ("Env", ["=b"]),
        ("Cmd", ["a\0b"]),
        ("Cmd", ["a" * 20_000]),
    ],
)
def test_a_config_that_no_start_could_use_is_refused_with_the_image(field, value):
    run = msgspec.convert({field: value}, type=_Run)
    with pytest.raises(InvalidInput) as refused:
        run_config(run)
    assert len(refused.value.message) < 400
