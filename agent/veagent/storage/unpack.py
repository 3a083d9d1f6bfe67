"""Unpacks a blob that a user gave, by real `tar` inside a sandbox (`sandbox`), and says in words what was wrong."""

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from veagent.storage import sandbox
from veapi.errors import InvalidInput, RemoteFailed
from veapi.model import Digest
from veapi.process import run

_HEAD_BYTES = 1024
_TAR = [
    *("tar", "--extract", "--file=-", "--numeric-owner", "--same-owner", "--preserve-permissions"),
    *("--acls", "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability"),
    *("--delay-directory-restore", "--force-local", "--quoting-style=escape"),
    # A VE's /dev is made by its start; nodes elsewhere can't be made in a user namespace and fail the import.
    *("--anchored", "--wildcards", "--exclude=dev/*", "--exclude=./dev/*", "--exclude=/dev/*"),
]
_MEMORY_BYTES = 512 << 20
_UNPACKERS = {
    "gz": ["gzip", "--decompress", "--stdout"],
    "xz": ["xz", "--decompress", "--stdout", f"--memlimit-decompress={_MEMORY_BYTES}"],
    "zst": ["zstd", "--decompress", "--stdout", "--quiet", f"--memory={_MEMORY_BYTES}"],
}
_MAGIC = (
    (b"\x1f\x8b", "gz"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
)
_OTHERS = (
    (b"BZh", "a bzip2 file"),
    (b"PK\x03\x04", "a zip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (b"hsqs", "a squashfs file system"),
    (b"QFI\xfb", "a qcow2 disk"),
    (b"\x7fELF", "a program (ELF)"),
    (b"-----BEGIN", "a PEM file"),
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
    (b"#!", "a script"),
)
_PACKAGES = {"xz": "xz-utils", "sh": "dash", "setpriv": "util-linux", "unshare": "util-linux"}
_GOOD = "give a root tarball (.tar, .tar.gz, .tar.xz or .tar.zst) or an OCI layout"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """`digest` of the uncompressed tar, and its size."""

    digest: Digest
    tar_bytes: int


def sniff(head: bytes) -> str:
    """`gz`, `xz`, `zst` or `tar` by the first 512 bytes; InvalidInput names what else it is."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if is_tar(head):
        return "tar"
    raise InvalidInput(f"this is no image but {describe(head)}", hint=_GOOD)


def is_tar(head: bytes) -> bool:
    """Whether a block is a tar header by its checksum (any dialect), or the end mark of an empty tar."""
    if len(head) < sandbox.BLOCK_BYTES:
        return False
    block = head[: sandbox.BLOCK_BYTES]
    if not any(block):
        return True
    try:
        wanted = int(block[148:156].split(b"\0")[0].strip() or b"x", 8)
    except ValueError:
        return False
    return wanted == sum(block[:148]) + 8 * 32 + sum(block[156:])


def describe(head: bytes) -> str:
    """What the bytes look like, for a message."""
    if not head:
        return "an empty file"
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if all(byte in b"\t\n\r\f" or byte >= 0x20 for byte in head):
        return "text"
    return "data of an unknown kind"


@dataclass(frozen=True, slots=True)
class Bounds:
    """`id_base`: first of 65,536 ids of this host, as which the programs run. Of one unpacking: bytes and seconds."""

    id_base: int
    most_bytes: int
    timeout_s: float

    def less(self, used_bytes: int) -> "Bounds":
        return replace(self, most_bytes=max(0, self.most_bytes - used_bytes))


async def unpack(blob: Path, root: Path, bounds: Bounds) -> Unpacked:
    """Fills `root` (an empty subvolume). InvalidInput when the blob is no whole tar or larger than allowed.

    Files are owned by what the tar says.
    """
    return await run_tar(blob, root, tar_argv(), bounds)


def tar_argv(*options: str) -> list[str]:
    """What unpacks standard input into the folder in which it runs."""
    return [*located(_TAR), *options]


async def run_tar(blob: Path, root: Path, tar: list[str], bounds: Bounds) -> Unpacked:
    """Runs `tar` (an absolute program) in the sandbox on what the blob holds, whatever it is packed by."""
    with blob.open("rb") as file:
        packed = sniff(file.read(_HEAD_BYTES))
    job = sandbox.Job(
        blob=str(blob),
        target=str(root),
        tar=tar,
        unpacker=located(_UNPACKERS[packed]) if packed in _UNPACKERS else [],
        id_base=bounds.id_base,
        most_bytes=bounds.most_bytes,
    )
    # By path and isolated: it must start fast, and sees nothing of this process but its arguments.
    argv = [sys.executable, "-I", "-S", str(Path(sandbox.__file__)), sandbox.encode(job)]
    done = await run(argv, timeout_s=bounds.timeout_s, env={"LC_ALL": "C.UTF-8"})
    outcome = msgspec.json.decode(done.stdout, type=sandbox.Outcome)
    _judge(outcome, packed, bounds.most_bytes)
    return Unpacked(Digest(f"sha256:{outcome.sha256}"), outcome.tar_bytes)


def located(argv: list[str]) -> list[str]:
    """With the program's whole path; RemoteFailed, naming the Debian package, when it is missing."""
    found = shutil.which(argv[0])
    if found is None:
        package = _PACKAGES.get(argv[0], argv[0])
        raise RemoteFailed(
            f"the host lacks the program {argv[0]}", hint=f"on the host: apt install {package}"
        )
    return [found, *argv[1:]]


def _judge(outcome: sandbox.Outcome, packed: str, most_bytes: int) -> None:
    """InvalidInput unless everything went well."""
    words = printable(outcome.words)
    if outcome.too_large or "Disk quota exceeded" in words or "File too large" in words:
        raise InvalidInput(
            f"the image unpacks to more than {most_bytes} bytes, which is all that this host takes",
            hint="make the image smaller, or free space in the host's pool",
        )
    if packed != "tar" and outcome.tar_bytes and not is_tar(bytes.fromhex(outcome.head)):
        raise InvalidInput(
            f"inside the {packed} is no tar but {describe(bytes.fromhex(outcome.head))}", hint=_GOOD
        )
    if outcome.unpacker_code != 0:
        raise InvalidInput(
            f"the {packed} data of the image is damaged: {words}", hint="pack or send it again"
        )
    if outcome.tar_code != 0:
        raise InvalidInput(f"tar can't unpack the image: {words}", hint=_why(words))


def _why(words: str) -> str:
    if "Unexpected EOF" in words:
        return "the file was cut short; send it again"
    if "mknod" in words:
        return "device nodes are only allowed (and ignored) below dev/"
    if "ownership" in words:
        return "owners must be below 65536: repack with --owner and --group, or as another user"
    return "test it with `tar -tvf`; names with `..` and device nodes outside dev/ are refused"


def printable(words: str) -> str:
    """The last lines that the programs said, without control characters (names in the tar are the user's)."""
    lines = words.strip().splitlines()[-3:]
    return "; ".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)[:500]
