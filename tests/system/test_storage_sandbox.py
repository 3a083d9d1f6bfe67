"""What a program can do in the sandbox in which tar unpacks: here a shell that tries, in tar's place."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kit.storage import ID_BASE, MIB, make_storage, storage_folder
from veagent.storage import btrfs, sandbox


@pytest.fixture
async def target(tmp_path):
    with storage_folder(tmp_path / "vstor") as place:
        storage = make_storage(place)
        await storage.pool.setup()
        btrfs.create_subvolume(storage.pool.tmp, "staging")
        yield storage.pool.tmp / "staging"


@pytest.fixture
def inside(target, tmp_path):
    blob = tmp_path / "blob"
    blob.write_bytes(b"x" * 1000)

    def run(script, unpacker=()):
        job = sandbox.Job(
            blob=str(blob),
            target=str(target),
            tar=["/bin/sh", "-c", script],
            unpacker=list(unpacker),
            id_base=ID_BASE,
            most_bytes=16 * MIB,
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", sandbox.__file__, sandbox.encode(job)],
            check=True,
            capture_output=True,
            timeout=30,
        )
        return json.loads(done.stdout)

    return run


def test_it_sees_programs_and_the_target_and_nothing_else_of_the_host(inside, target):
    seen = set(inside("cd /; echo *")["words"].split())
    assert "target" in seen
    assert seen <= {"target", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
    assert inside("pwd")["words"].strip() == "/target"


@pytest.mark.parametrize(
    "attempt",
    [
        "touch /owned",
        "touch /usr/owned",
        "chmod 777 /usr/bin/tar",
        "mknod /target/sda b 8 0",
        "mknod /target/mem c 1 1",
        "mount -t tmpfs x /target",
        "mount --bind /usr /target",
        "mount -o remount,rw /usr",
        "umount /target",
        "chroot /target /bin/true",
        "ln /usr/bin/tar /target/tar",
        "cp /usr/bin/true /target/run && /target/run",
        "nsenter -t 1 -m true",
        "unshare -m true",
        "chown 65536 /target",
        "cat /proc/self/status",
        "dd if=/dev/zero of=/target/big bs=1M count=1",  # there is no /dev/zero
    ],
)
def test_what_would_lead_out_fails(inside, attempt):
    assert inside(f"{attempt} && exit 0; exit 3")["tar_code"] == 3


def test_files_belong_to_what_the_tar_says_not_to_host_ids(inside, target):
    assert inside("touch a b && chown 33:65535 b")["tar_code"] == 0
    assert (target / "a").stat().st_uid == 0
    assert ((target / "b").stat().st_uid, (target / "b").stat().st_gid) == (33, 65535)


def test_no_file_grows_beyond_what_the_image_may_have(inside, target):
    assert inside("yes >big && exit 0; exit 3")["tar_code"] == 3
    assert (target / "big").stat().st_size == 16 * MIB


def test_it_sees_no_process_and_no_network_of_the_host(inside):
    assert inside(f"kill -0 {os.getpid()} && exit 0; exit 3")["tar_code"] == 3
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        script = "use IO::Socket::INET; exit(IO::Socket::INET->new(shift) ? 0 : 3);"
        outcome = inside(f"echo '{script}' >p; perl p {address}")
    assert outcome["tar_code"] == 3, outcome["words"]


def test_the_unpacker_can_not_even_write_the_target(inside, target):
    outcome = inside("cat >got; exit 0", ["/bin/sh", "-c", "touch /target/owned; cat"])
    assert outcome["tar_bytes"] == 1000
    assert (target / "got").read_bytes() == b"x" * 1000
    assert not (target / "owned").exists()


def test_the_environment_of_the_agent_does_not_get_in(inside, monkeypatch):
    monkeypatch.setenv("VSTOR_SECRET", "leaked")
    assert "leaked" not in inside("export -p")["words"]


def test_endless_words_neither_block_nor_grow(inside):
    outcome = inside("i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678; i=$((i+1)); done")
    assert len(outcome["words"]) <= 4096


def test_a_sandbox_that_fails_says_so(target, tmp_path):
    (tmp_path / "blob").write_bytes(b"x")
    job = sandbox.Job(str(tmp_path / "blob"), str(target), ["/nowhere"], [], 2**32 - 1000, MIB)
    argv = [sys.executable, "-I", "-S", str(Path(sandbox.__file__)), sandbox.encode(job)]
    done = subprocess.run(argv, check=False, capture_output=True, timeout=30)
    assert done.returncode != 0
