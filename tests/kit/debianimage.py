"""The Debian image of deploy/images/debian.sh, built once and kept between test runs, outside of the tree."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "images" / "debian.sh"
CACHE = Path("/var/cache/verack-tests")
_NO_MIRROR = ("Failed to fetch", "Could not resolve", "Could not connect", "Temporary failure")


def debian_image() -> Path:
    """Skips, with the reason, when no package mirror can be reached; any other failure is one."""
    name = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:16]
    image = CACHE / f"debian-{name}.tar.zst"
    if image.exists():
        return image
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob("debian-*"):
        old.unlink()
    part = CACHE / f"debian-{os.getpid()}.part"
    done = subprocess.run(
        ["sh", str(SCRIPT), str(part)], check=False, capture_output=True, text=True, timeout=900
    )
    if done.returncode != 0 and any(sign in done.stderr for sign in _NO_MIRROR):
        pytest.skip(f"no Debian mirror can be reached: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    return part.rename(image)
