"""Makes the Python stubs from the .proto files; with --check, says whether the committed ones are stale."""

import argparse
import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def sources() -> list[str]:
    """All .proto files, relative to the proto root."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))


def generate(out: Path) -> None:
    """Writes the stubs of all sources below `out`; raises CalledProcessError on a bad .proto."""
    scripts = Path(sys.executable).parent
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT}",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources(),
        ],
        check=True,
        cwd=ROOT,
        timeout=120,
    )


def stale() -> list[str]:
    """Names of committed stubs that differ from what the sources give now, and of missing ones."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        files = sorted(path.relative_to(fresh) for path in fresh.rglob("*_pb2*") if path.is_file())
        return [
            str(file)
            for file in files
            if not (ROOT / file).exists()
            or not filecmp.cmp(ROOT / file, fresh / file, shallow=False)
        ]


def main() -> int:
    """Exit code 0: done, or nothing stale; 1: stale stubs, named on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when a stub is stale"
    )
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    names = stale()
    for name in names:
        sys.stderr.write(f"stale: proto/{name} (run: python proto/generate.py)\n")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
