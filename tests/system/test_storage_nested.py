"""A VE makes no subvolumes: they would be in no snapshot of it, and could count for nobody or for another VE."""

import shutil
import subprocess
from pathlib import Path

import pytest

from kit.busyboxroot import make_busybox_root
from kit.realves import lab
from kit.storage import MIB, UID, make_storage, storage_folder, stream, tar_of
from veagent.ports import RootSource
from veagent.storage import btrfs

pytestmark = pytest.mark.usefixtures("host_can_run_ves")
PROFILE = Path(__file__).resolve().parents[2] / "agent/veagent/runtime/ve.seccomp"


@pytest.fixture
def place(tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o711)
    with storage_folder(tmp_path / "vnest") as folder:
        yield folder


def add_btrfs(root: Path) -> None:
    """The machine's own btrfs program with its libraries."""
    program = shutil.which("btrfs")
    assert program is not None
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True)
    words = {word for line in listed.stdout.splitlines() for word in line.split()}
    for file in (program, *(word for word in words if word.startswith("/"))):
        to = root / str(file).lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(file).resolve(), to)


@pytest.mark.parametrize(
    "command",
    ["create /sub", "create -i 1/77 /sub", "snapshot / /sub", "snapshot -r / /sub"],
)
async def test_a_guest_s_subvolume_is_refused_as_on_another_file_system(place, command):
    storage = make_storage(place)
    await storage.roots.setup()
    image = await storage.images.add(stream(tar_of()))
    root = await storage.roots.create(UID, RootSource(image=image.digest), 128 * MIB, "web")
    shutil.rmtree(root / "sbin")
    make_busybox_root(root)
    add_btrfs(root)
    async with lab() as ves:
        plan = ves.plan(uid=UID, root=root)
        instance = await ves.runtime.start(plan)
        there = await ves.run(instance, "btrfs", "subvolume", "show", "/")
        made = await ves.run(instance, "btrfs", "subvolume", *command.split())
        await ves.runtime.stop(instance, timeout_s=0)
    assert "not a btrfs" not in there.err.lower()
    assert made.code != 0
    assert "nappropriate ioctl" in made.err
    assert not (root / "sub").exists() or not btrfs.is_subvolume(root / "sub")


def test_all_four_ways_to_make_a_subvolume_are_refused_whatever_the_high_bits_say():
    lines = PROFILE.read_text().splitlines()
    for number in (1, 14, 23, 24):
        request = 1 << 30 | 4096 << 16 | 0x94 << 8 | number
        assert f"ioctl errno 25 [1,{request},SCMP_CMP_MASKED_EQ,{0xFFFFFFFF}]" in lines
