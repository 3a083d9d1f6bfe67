"""Manifests: what is accepted, and that refusals name source, line and field."""

import io
from pathlib import Path

import pytest

from veapi.errors import InvalidInput
from vectl import manifest, yamltree
from vectl.wanted import Wanted

WEB = b"kind: VE\nmetadata: {name: web}\nspec: {image: debian}\n"


def parsed(text: bytes) -> list[Wanted]:
    return [ve for _, ve in manifest.parse(text, "web.yaml")]


def test_a_whole_manifest_becomes_what_is_wanted() -> None:
    text = b"""
kind: VE
metadata:
  name: web
  project: shop
  labels: {tier: on, release: 1.10, empty: ""}
spec:
  image: debian:12
  cpu: 0.5
  memory: 1G
  disk: 1.5GiB
  pids: 256
  run: stopped
  ip: 10.66.0.7
  host: h1
  on_host_loss: stay
  cpu_weight: 200
  swap: 512M
  io_weight: 0
  io_read: 10M/s
  io_write: none
  net_in: 100Mbit
  net_out: 0
  snapshots: Daily keep 7,every 6h keep 4
  env: {MODE: fast, EMPTY: ""}
  command: [sh, -c, "exit 1"]
  require: ["disk in (ssd, nvme)", gen>3]
  prefer: zone=a
  tolerate: [gpu]
  near: []
  apart: ["app=web over rack max 2"]
  spread: ["app=web over rack skew 1"]
  priority: -5
"""
    assert parsed(text) == [
        Wanted(
            name="web",
            project="shop",
            labels={"tier": "on", "release": "1.10", "empty": ""},
            image="debian:12",
            cpu_millis=500,
            memory_bytes=1 << 30,
            disk_bytes=3 << 29,
            pids=256,
            run="stopped",
            ip="10.66.0.7",
            host="h1",
            on_host_loss="stay",
            cpu_weight=200,
            swap_bytes=512 << 20,
            io_read_bps=10 << 20,
            net_in_bps=100_000_000,
            snapshot_schedule="daily keep 7, every 6h keep 4",
            env={"MODE": "fast", "EMPTY": ""},
            command=("sh", "-c", "exit 1"),
            require=("disk in (nvme,ssd)", "gen>3"),
            prefer=("zone=a weight 10",),
            tolerate=("gpu",),
            apart=("app=web over rack max 2",),
            spread=("app=web over rack",),
            priority=-5,
            given=frozenset(
                [
                    "image",
                    "cpu_millis",
                    "memory_bytes",
                    "disk_bytes",
                    "pids",
                    "run",
                    "ip",
                    "host",
                    "on_host_loss",
                    "cpu_weight",
                    "swap_bytes",
                    "io_weight",
                    "io_read_bps",
                    "io_write_bps",
                    "net_in_bps",
                    "net_out_bps",
                    "snapshot_schedule",
                    "env",
                    "command",
                    "require",
                    "prefer",
                    "tolerate",
                    "near",
                    "apart",
                    "spread",
                    "priority",
                ]
            ),
        )
    ]


def test_what_is_left_out_is_left_to_the_controller() -> None:
    assert parsed(WEB) == [Wanted(name="web", image="debian", given=frozenset(("image",)))]


def test_bytes_may_be_given_as_the_api_gives_them() -> None:
    text = b"kind: VE\nmetadata: {name: web}\nspec: {image: a, memory_bytes: 67108864}\n"
    assert parsed(text)[0].memory_bytes == 64 << 20


def test_several_documents_come_in_order_and_empty_ones_are_skipped() -> None:
    text = b"---\n" + WEB + b"---\n---\n# nothing\n---\n" + WEB.replace(b"web", b"db")
    assert [ve.name for ve in parsed(text)] == ["web", "db"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WEB + b"  \tx", ["web.yaml, line 4", "not YAML"]),
        (b"kind: VE\nmetadata: {name: a\n", ["web.yaml, line 3", "not YAML"]),
        (b"\x00", ["web.yaml", "not YAML"]),
        (b"\xff\xfe\x00", ["web.yaml", "not YAML"]),
        (b"just text", ["line 1", "must be a mapping"]),
        (b"- kind: VE", ["line 1", "must be a mapping"]),
        (b"metadata: {name: a}", ["kind is missing"]),
        (b"kind: Pod", ["line 1", "'Pod' is not known"]),
        (b"kind: VE\nmetadata: {name: a}", ["spec is missing"]),
        (b"kind: VE\nspec: {image: a}", ["metadata is missing"]),
        (b"kind: VE\nmetadata: {}\nspec: {image: a}", ["line 2", "metadata.name is missing"]),
        (b"kind: VE\nmetadata: {name: a}\nspec: {}", ["line 3", "spec.image is missing"]),
        (b"kind: VE\nmetadata: {name: Bad}\nspec: {image: a}", ["line 2", "metadata.name"]),
        (b"kind: VE\nmetadata: {name: }\nspec: {image: a}", ["line 2", "metadata.name is empty"]),
        (b"kind: VE\nmetadata: {name: [a]}\nspec: {image: a}", ["line 2", "one value"]),
        (b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  memroy: 1G", ["line 5", "memroy"]),
        (b"kind: VE\nextra: 1\nmetadata: {name: a}\nspec: {image: a}", ["line 2", "extra"]),
        (b"kind: VE\nmetadata: {name: a, uid: b}\nspec: {image: a}", ["metadata.uid"]),
        (b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  memory: ten", ["line 5", "'ten'"]),
        (b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  memory: 0", ["line 5", "memory"]),
        (b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  cpu: nan", ["line 5", "cpu"]),
        (b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  pids: 1e3", ["line 5", "pids"]),
        (b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  priority: 2k", ["line 5", "2k"]),
        (
            b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  near: [a=b over]",
            ["line 5", "near"],
        ),
        (b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  apart: {a: b}", ["line 5", "apart"]),
        (b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  run: maybe", ["line 5", "run"]),
        (b"kind: VE\nmetadata: {name: a}\nspec:\n  image: a\n  ip: 10.0.0", ["line 5", "ip"]),
        (b"kind: VE\nmetadata: {name: a, labels: [b]}\nspec: {image: a}", ["metadata.labels"]),
        (b"kind: VE\nmetadata: {name: a, labels: {b c: d}}\nspec: {image: a}", ["'b c'"]),
        (WEB + b"kind: VE\n", ["line 4", "kind is there twice"]),
        (
            b"kind: VE\nmetadata: {name: a}\nspec: {image: a, disk: 1G, disk_bytes: 5}",
            ["line 3", "says again"],
        ),
        (b"a: &x 1\nb: *x", ["line 1", "anchors"]),
        (b"kind: !!python/object:os.system {}", ["line 1", "tag"]),
        (b"[" * 50 + b"]" * 50, ["nested deeper"]),
        (b"? {a: b}\n: c", ["a key must be a text"]),
    ],
)
def test_a_refusal_says_where_and_what(text: bytes, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(text)
    assert refused.value.hint
    assert refused.value.exit_code == 2
    for word in ["web.yaml", *words]:
        assert word in refused.value.message


def test_a_typo_gets_the_field_that_was_meant() -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(b"kind: VE\nmetadata: {name: a}\nspec: {image: a, memroy: 1G}")
    assert "did you mean memory?" in refused.value.hint


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(InvalidInput, match="anchors and aliases"):
        parsed("\n".join(lines).encode())


def test_too_large_an_input_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at most"):
        parsed(b"#" * (yamltree.SIZE_LIMIT_BYTES + 1))


def test_folders_files_and_stdin_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_bytes(WEB.replace(b"web", b"b"))
    (tmp_path / "a.yaml").write_bytes(WEB.replace(b"web", b"a"))
    (tmp_path / "note.txt").write_text("no manifest")
    found = manifest.read_all((str(tmp_path), "-"), io.BytesIO(WEB))
    assert [ve.name for ve in found] == ["a", "b", "web"]


def test_a_ve_that_is_named_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_bytes(WEB)
    with pytest.raises(InvalidInput, match=r"b\.yaml, line 1: web is there twice") as refused:
        manifest.read_all((str(tmp_path),), io.BytesIO())
    assert "a.yaml, line 1" in refused.value.hint


@pytest.mark.parametrize("source", ["missing.yaml", "."])
def test_what_can_not_be_read_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput):
        manifest.read_all((source,), io.BytesIO())


def test_an_empty_manifest_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no VE in -"):
        manifest.read_all(("-",), io.BytesIO(b"---\n"))
