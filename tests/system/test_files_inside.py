"""Files into real VEs and out of them, running and not, with hostile ones inside."""
# ruff: noqa: PTH115, PTH116, PTH208

import asyncio
import io
import os
import shutil
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.filepipe import FilePipe
from kit.realves import Lab, lab
from veagent.files import Files
from veagent.hostfiles import Place
from veagent.ports import ExecCommand, Instance, StartPlan
from veapi.clock import SystemClock
from veapi.errors import Conflict, InvalidInput, NotFound, VerackError
from veapi.tarstream import END, Member, header, padding
from veapi.v1 import api_pb2

pytestmark = pytest.mark.skipif(shutil.which("lxc-start") is None, reason="lxc is not installed")
STATES = pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])


class House:
    """One VE of a lab, and what can be done with its files."""

    def __init__(self, ves: Lab, plan: StartPlan) -> None:
        self.ves = ves
        self.plan = plan
        self.root = Path(plan.root)
        self.instance: Instance | None = None
        self.files = Files(self, SystemClock())  # type: ignore[arg-type]

    def place(self, uid, instance, id_base: int) -> Place:
        if instance is None:
            return Place(uid, self.root, id_base)
        guest = self.ves.runtime.cgroups.guest(uid)
        return Place(uid, self.root, id_base, instance.init_pid, guest)

    async def push(self, tar: bytes, path: str = "/srv", *, cut: bool = False, **start):
        pipe = FilePipe([tar[at : at + 65536] for at in range(0, len(tar), 65536)], cut=cut)
        request = api_pb2.PushStart(path=path, **start)
        plan = self.plan
        await self.files.push(pipe, plan.uid, self.instance, plan.id_base, request)  # type: ignore[arg-type]
        return pipe.done.transferred

    async def pull(self, *paths: str, recursive: bool = True) -> tuple[tarfile.TarFile, FilePipe]:
        pipe = FilePipe()
        request = api_pb2.PullRequest(paths=paths, recursive=recursive)
        plan = self.plan
        await self.files.pull(pipe, plan.uid, self.instance, plan.id_base, request)  # type: ignore[arg-type]
        return tarfile.open(fileobj=io.BytesIO(pipe.data)), pipe

    async def sh(self, script: str) -> str:
        assert self.instance is not None
        return (await self.ves.run(self.instance, "sh", "-c", script)).out

    async def background(self, script: str) -> None:
        assert self.instance is not None
        await self.ves.runtime.execute(self.instance, ExecCommand(["sh", "-c", script]))


@pytest.fixture
async def ves() -> AsyncIterator[Lab]:
    async with lab() as made:
        yield made


@pytest.fixture
async def house(ves: Lab) -> House:
    plan = ves.plan()
    root = Path(plan.root)
    (root / "srv").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n")
    return House(ves, plan)


async def start(house: House, running: bool) -> None:  # noqa: FBT001
    if running:
        house.instance = await house.ves.runtime.start(house.plan)


def tar_of(*members: tuple[Member, bytes]) -> bytes:
    packed = b"".join(header(m) + data + padding(len(data)) for m, data in members)
    return packed + END


def file(name: str, data: bytes, **fields) -> tuple[Member, bytes]:
    return Member(name.encode(), size=len(data), **fields), data


def guests(house: House) -> str:
    """Processes from outside that work in the VE."""
    return "".join(
        Path(path).read_text() for path in house.ves.runtime.cgroups.guest(house.plan.uid)
    )


TREE = tar_of(
    (Member(b"app", "5", 0o2750, 33, 34, mtime=1000), b""),
    file("app/run", b"#!/bin/sh\n", mode=0o4755, uid=1000, gid=7, mtime=2000),
    (Member(b"app/link", "2", 0o777, 5, 5, link=b"/etc/passwd"), b""),
    (Member(b"app/same", "1", link=b"app/run"), b""),
    (Member(b"app/null", "3"), b""),
)


@STATES
async def test_a_folder_comes_in_with_owners_modes_and_links(house: House, running) -> None:
    await start(house, running)
    done = await house.push(TREE)
    assert done.files == 4
    assert [note.split(":")[0] for note in done.notes] == ["app/null"]
    app = house.root / "srv/app"
    found = (app / "run").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 7, 0o4755)
    assert found.st_mtime == 2000
    assert found.st_ino == (app / "same").stat().st_ino
    folder = app.stat()
    assert (folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode)) == (33, 34, 0o2750)
    assert os.readlink(app / "link") == "/etc/passwd"
    assert sorted(entry.name for entry in app.iterdir()) == ["link", "run", "same"]


@STATES
@pytest.mark.parametrize(
    ("owner", "ids"), [("alice", (1000, 1001)), ("alice:0", (1000, 0)), ("5:6", (5, 6))]
)
async def test_an_owner_is_one_of_the_ve(house: House, running, owner: str, ids) -> None:
    await start(house, running)
    await house.push(TREE, owner=owner)
    for path in (house.root / "srv/app", house.root / "srv/app/run", house.root / "srv/app/link"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == ids


@STATES
async def test_what_comes_in_goes_out_the_same(house: House, running) -> None:
    await start(house, running)
    await house.push(TREE)
    tar, pipe = await house.pull("/srv/app")
    members = {m.name: m for m in tar.getmembers()}
    assert sorted(members) == ["app", "app/link", "app/run", "app/same"]
    run = members["app/run"]
    assert (run.uid, run.gid, run.mode, run.mtime) == (1000, 7, 0o4755, 2000)
    assert members["app/same"].linkname == "app/run"
    assert members["app/link"].linkname == "/etc/passwd"
    assert pipe.done.transferred.files == 4


@STATES
async def test_one_file_gets_the_name_that_the_path_says(house: House, running) -> None:
    await start(house, running)
    await house.push(tar_of(file("local.conf", b"x=1\n")), "/srv/new.conf")
    await house.push(tar_of(file("local.conf", b"y=2\n")), "/srv/")
    assert (house.root / "srv/new.conf").read_bytes() == b"x=1\n"
    assert (house.root / "srv/local.conf").read_bytes() == b"y=2\n"


@STATES
async def test_a_stream_becomes_a_file_only_when_it_is_whole(house: House, running) -> None:
    await start(house, running)
    await house.push(b"a" * 300_000 + b"\n", "/srv/big", plain=True, mode=0o600, owner="alice")
    found = house.root / "srv/big"
    assert found.read_bytes() == b"a" * 300_000 + b"\n"
    assert (found.stat().st_uid, stat.S_IMODE(found.stat().st_mode)) == (1000, 0o600)
    with pytest.raises(InvalidInput, match="cut short"):
        await house.push(b"b" * 300_000, "/srv/big", plain=True, cut=True)
    with pytest.raises(InvalidInput, match="cut short"):
        await house.push(TREE[:700], cut=True)
    assert found.read_bytes()[:1] == b"a"
    assert not [name for name in os.listdir(house.root / "srv") if "verack" in name]


@STATES
@pytest.mark.parametrize(
    ("path", "options", "kind", "words"),
    [
        ("/nowhere/x", {}, NotFound, "/nowhere: No such file"),
        ("/srv/x/", {}, NotFound, "no folder"),
        ("/srv/x", {"into": True}, NotFound, "no folder"),
        ("/etc/passwd/x", {}, NotFound, "Not a directory"),
        ("/srv", {"owner": "mallory"}, NotFound, "no user mallory"),
        ("/srv", {"owner": "alice:none"}, NotFound, "no group none"),
        ("/srv", {"plain": True}, InvalidInput, "is a folder"),
    ],
)
async def test_what_can_not_be_pushed_is_said(
    house: House, running, path: str, options, kind, words: str
) -> None:
    await start(house, running)
    with pytest.raises(kind, match=words) as refused:
        await house.push(tar_of(file("a", b"x")), path, **options)
    assert refused.value.hint


@pytest.mark.parametrize(
    "member",
    [
        *(file("../up", b"x"), file("/etc/shadow", b"x"), file("a/../../b", b"x")),
        *(file("", b""), file(".", b""), file("a//b", b""), file("x" * 256, b"")),
        (Member(b"a", "1", link=b"../etc/passwd"), b""),
        (Member(b"a", "1", link=b"etc/passwd"), b""),
        (Member(b"/".join([b"d"] * 300), "5"), b""),
    ],
)
async def test_hostile_members_are_refused(house: House, member) -> None:
    with pytest.raises((InvalidInput, Conflict)) as refused:
        await house.push(tar_of(member))
    assert refused.value.hint
    assert os.listdir(house.root / "srv") == []


@pytest.mark.parametrize("junk", [b"x" * 512, b"\0" * 512 + b"x" * 512, b"", b"\x1f\x8b" * 512])
async def test_what_is_no_tar_is_refused(house: House, junk: bytes) -> None:
    with pytest.raises(InvalidInput, match="the tar is refused"):
        await house.push(junk)


@STATES
async def test_links_inside_lead_to_places_inside(house: House, running) -> None:
    """A VE's absolute links are its own, never the host's."""
    secret = house.ves.folder / "secret"
    secret.mkdir(mode=0o777)
    (secret / "word").write_text("the host's")
    (house.root / "out").symlink_to(secret)
    (house.root / "up").symlink_to("../../../../../../../../../.." + str(secret))
    (house.root / "here").symlink_to("/srv")
    await start(house, running)
    for way in ("/out", "/up", "/out/word", "/up/word"):
        with pytest.raises(NotFound):
            await house.pull(way)
        with pytest.raises(NotFound):
            await house.push(tar_of(file("planted", b"x")), f"{way}/", into=True)
    await house.push(tar_of(file("planted", b"x")), "/here/")
    assert (house.root / "srv/planted").exists()
    assert os.listdir(secret) == ["word"]


async def test_the_host_is_not_there_by_way_of_proc_either(house: House) -> None:
    await start(house, running=True)
    for way in ("/proc/self/root/etc/shadow", "/proc/1/root/../../../etc/debian_version"):
        with pytest.raises(NotFound):
            await house.pull(way)


async def test_a_ve_that_swaps_its_folders_for_links_gets_nothing_of_the_host(house: House) -> None:
    """A loop inside swaps the folder that is written to, and read from, while transfers run."""
    secret = house.ves.folder / "secret"
    secret.mkdir(mode=0o777)
    (secret / "word").write_text("the host's")
    before = {
        name: os.stat(f"/etc/{name}").st_mtime_ns for name in ("passwd", "shadow", "hostname")
    }
    await start(house, running=True)
    await house.background(
        f"cd /srv; mkdir real; while :; do mkdir app; mkdir app/deep; echo own >app/word; rm -rf app;"
        f" ln -s {secret} app; rm app; ln -s /etc app; rm app; ln -s /proc/1/root app; rm app; done"
    )
    members = [(Member(b"app", "5", 0o755), b""), (Member(b"app/deep", "5", 0o755), b"")]
    members += [file(f"app/deep/f{n}", b"planted" * 100) for n in range(200)]
    members += [file("app/word", b"planted"), file("app/hostname", b"planted")]
    pushed = refused = 0
    for _ in range(15):
        try:
            await house.push(tar_of(*members))
            pushed += 1
        except VerackError as error:
            assert error.hint
            refused += 1
        with suppress(VerackError):
            tar, _ = await house.pull("/srv/app")
            for member in tar.getmembers():
                content = tar.extractfile(member) if member.isfile() else None
                assert content is None or b"the host's" not in content.read()
    assert pushed + refused == 15
    assert refused
    assert os.listdir(secret) == ["word"]
    assert (secret / "word").read_text() == "the host's"
    for name, changed in before.items():
        assert os.stat(f"/etc/{name}").st_mtime_ns == changed


async def test_a_folder_swapped_by_a_user_of_the_ve_does_not_lead_roots_files_elsewhere(
    house: House,
) -> None:
    """Beneath the path that was named no link is followed, so a VE's users can't misuse its root's transfers."""
    await start(house, running=True)
    await house.sh("mkdir /srv/app; ln -s /etc /srv/app/conf")
    with pytest.raises(Conflict) as refused:
        await house.push(tar_of((Member(b"app", "5"), b""), file("app/conf/planted", b"x")))
    assert refused.value.hint
    assert not (house.root / "etc/planted").exists()


async def test_devices_pipes_and_mounts_are_left_out_and_nothing_blocks(house: House) -> None:
    await start(house, running=True)
    await house.sh(
        "mkdir /srv/x /srv/x/m; mkfifo /srv/x/pipe; echo a >/srv/x/a; mount -t tmpfs t /srv/x/m"
    )
    tar, pipe = await asyncio.wait_for(house.pull("/srv/x"), 20)
    assert sorted(tar.getnames()) == ["x", "x/a"]
    assert [note.split(":")[0] for note in pipe.done.transferred.notes] == ["x/m", "x/pipe"]
    for path, words in (
        ("/srv/x/pipe", "neither"),
        ("/dev/null", "neither"),
        ("/nosuch", "No such"),
    ):
        with pytest.raises(NotFound, match=words):
            await asyncio.wait_for(house.pull(path), 20)
    with pytest.raises(NotFound, match="-r"):
        await house.pull("/srv", recursive=False)


async def test_files_of_proc_have_their_content(house: House) -> None:
    await start(house, running=True)
    tar, _ = await house.pull("/proc/sys/kernel/ostype", recursive=False)
    content = tar.extractfile("ostype")
    assert content is not None
    assert content.read() == b"Linux\n"


async def test_a_running_ves_own_mounts_are_seen(house: House) -> None:
    await start(house, running=True)
    await house.sh("mount -t tmpfs t /srv; echo hi >/srv/in")
    tar, _ = await house.pull("/srv")
    assert tar.getnames() == ["srv", "srv/in"]
    assert os.listdir(house.root / "srv") == []


async def test_nothing_of_a_transfer_is_seen_inside_or_left_behind(house: House) -> None:
    await start(house, running=True)
    assert house.instance is not None
    pipe = FilePipe([TREE[:600]], cut=True)
    pipe.receive = lambda: asyncio.sleep(3600)  # type: ignore[method-assign]
    plan = house.plan
    request = api_pb2.PushStart(path="/srv")
    going = asyncio.create_task(
        house.files.push(pipe, plan.uid, house.instance, plan.id_base, request)  # type: ignore[arg-type]
    )
    await eventually(lambda: guests(house))
    assert "python" not in await house.sh("ps; cat /proc/[0-9]*/comm")
    pipe.gone.set()
    with pytest.raises(VerackError, match="gone"):
        await going
    assert guests(house) == ""
    await house.ves.runtime.stop(house.instance, timeout_s=0)


async def test_a_stop_ends_transfers(house: House) -> None:
    await start(house, running=True)
    assert house.instance is not None
    plan = house.plan
    pipe = FilePipe()
    pipe.receive = lambda: asyncio.sleep(3600)  # type: ignore[method-assign]
    going = asyncio.create_task(
        house.files.push(
            pipe,  # type: ignore[arg-type]
            plan.uid,
            house.instance,
            plan.id_base,
            api_pb2.PushStart(path="/srv"),
        )
    )
    await eventually(lambda: guests(house))
    await house.ves.runtime.stop(house.instance, timeout_s=0)
    with pytest.raises(VerackError):
        await asyncio.wait_for(going, 20)
    assert house.ves.groups() == []
