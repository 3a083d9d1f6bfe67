"""Images in a pool: what is held, what is left, and who still unpacks."""

import contextlib
from pathlib import Path

from kit.oci import Layout
from kit.storage import BASE, stream, tar_of
from veapi.model import Digest

ROOT = tar_of(BASE)
RUN = {
    "Entrypoint": ["/bin/app", "two words"],
    "Cmd": ["serve"],
    "Env": ["A=1", "B=x=y"],
    "User": "web",
    "WorkingDir": "/srv",
}


def root_of(storage, digest):
    return storage.pool.images / digest.removeprefix("sha256:") / "root"


def assert_nothing_is_left(storage):
    assert list(storage.pool.tmp.iterdir()) == []
    assert list(storage.pool.images.iterdir()) == []
    assert storage.images.held() == ()


def tree(root):
    """Every path with its content, link or kind, less what any root gets."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
        else:
            found[name] = "/"
    for name in ("dev", "etc", "proc", "run", "sys", "sbin", "sbin/init"):
        found.pop(name, None)
    return found


async def add(storage, *layers, **options):
    layout = Layout()
    digest = layout.add_image(layers, **options)
    image = await storage.images.add(stream(layout.tar()), expect=Digest(digest))
    assert image.digest == digest
    return root_of(storage, digest)


def running_as(first_id):
    """Processes of the 65,536 ids from there on."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if first_id <= process.stat().st_uid < first_id + 65_536:
                found.append(process.name)
    return found
