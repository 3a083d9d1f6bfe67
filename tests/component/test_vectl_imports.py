"""What help and completion cost: nothing heavy is imported for them."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("grpc", "google.protobuf", "yaml", "msgspec", "numpy", "cryptography", "structlog")


@pytest.mark.parametrize(
    ("line", "words", "also"),
    [
        ("--help", "", ("asyncio",)),
        ("version --client", "", ("asyncio",)),
        ("completion bash", "", ("asyncio",)),
        ("create --help", "", ()),
        ("image import --help", "", ()),
        ("", "vectl cre", ("asyncio",)),
        ("", "vectl create --ima", ()),
        ("", "vectl list -o js", ()),
    ],
)
def test_help_and_completion_import_nothing_heavy(
    line: str, words: str, also: tuple[str, ...], tmp_path: Path
) -> None:
    script = (
        "import sys, vectl.main\n"
        "try: vectl.main.run(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY + also!r} if name in sys.modules], file=sys.stderr)"
    )
    env = {"XDG_CONFIG_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    if words:
        env |= {
            "_VECTL_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
    done = subprocess.run(
        [sys.executable, "-c", script, *line.split()],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "[]\n"
    assert done.stdout
