"""Fetches an image from a registry into an OCI layout, by skopeo.

What a registry answers is as hostile as any upload, and skopeo parses it. So it runs as an id of the range that images are
unpacked with, which owns nothing else on this host: without capabilities or groups, without a way to gain any, and with
nothing that it can write but the layout, whose quota bounds what it stores. It sees neither credentials nor the agent's environment.
It dies with the agent, and with whoever waits for it.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from veagent.ports import PullProgress, RegistrySource
from veagent.storage import unpack
from veagent.storage.failure import doing
from veagent.storage.threads import to_end
from veapi import registry
from veapi.errors import (
    Denied,
    InvalidInput,
    NotFound,
    RemoteFailed,
    TimedOut,
    Unavailable,
    VerackError,
)

log = structlog.get_logger()
_USER = 65_533
_PLACE = "/mnt"  # every Debian has it; the bind mount is seen by skopeo alone
_WORDS_BYTES = 16 << 10
_LOOK_EVERY_S = 0.25
_PIECE_BYTES = 1 << 20
_FILES_LIMIT = 4096
_PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_MESSAGE = re.compile(r'level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"')
_INSECURE_HINT = "if that registry is to be trusted all the same, pull with --insecure"
_KINDS: tuple[tuple[str, type[VerackError], str], ...] = (
    ("server gave HTTP response to HTTPS client", Unavailable, _INSECURE_HINT),
    ("first record does not look like a TLS handshake", Unavailable, _INSECURE_HINT),
    ("x509:", Unavailable, _INSECURE_HINT),
    ("manifest unknown", NotFound, "look at the name and the tag; there is no such image"),
    ("name unknown", NotFound, "look at the name; there is no such image"),
    ("no image found in manifest list", NotFound, "the image is not made for this platform"),
    (
        "unauthorized",
        Denied,
        "only what everybody may pull can be pulled; or copy it: vectl image import",
    ),
    (
        "denied",
        Denied,
        "only what everybody may pull can be pulled; or copy it: vectl image import",
    ),
    ("quota exceeded", InvalidInput, "it is larger than this host takes: free space in its pool"),
    ("file too large", InvalidInput, "it is larger than this host takes: free space in its pool"),
    ("no such host", Unavailable, "look at the registry's name, and at the host's name servers"),
    ("connection refused", Unavailable, "look at the registry's name and port"),
)


async def copy(
    source: RegistrySource,
    layout: Path,
    *,
    id_base: int,
    timeout_s: float,
    stall_s: float,
    progress: PullProgress,
) -> None:
    """Fills `layout` (an empty folder). Raises what the registry or skopeo says; TimedOut when nothing comes."""
    registry.source("source", source.reference)
    argv = _argv(source, layout, id_base + _USER)
    with doing("preparing a pull"):
        os.chown(layout, id_base + _USER, id_base + _USER)
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
        cwd="/",
    )
    try:
        words = await _ended(process, layout, timeout_s, stall_s, progress)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        log.info("pull failed", source=source.reference, words=words[-500:])
        raise _failure(source.reference, words)
    await progress(await to_end(_size_bytes, layout))


async def packed(layout: Path) -> AsyncIterator[bytes]:
    """A tar of it, in pieces; the same layout gives the same bytes."""
    process = await asyncio.create_subprocess_exec(
        *unpack.located(["tar"]),
        *("--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"),
        *("--mode=u=rwX,go=rX", f"--directory={layout}", "oci-layout", "index.json", "blobs"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_PIECE_BYTES,
    )
    assert process.stdout is not None
    try:
        while piece := await process.stdout.read(_PIECE_BYTES):
            yield piece
        if await process.wait() != 0:
            raise RemoteFailed("the pulled image could not be packed", hint="see the agent's log")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _argv(source: RegistrySource, layout: Path, user: int) -> list[str]:
    """Skopeo is process 1 of a PID namespace: once it has ended, nothing that it began can change what is checked then."""
    mount = f'mount --bind -- "$1" {_PLACE} && shift && exec "$@"'
    return [
        *unpack.located(["setpriv"]),
        "--pdeathsig=KILL",
        *unpack.located(["unshare"]),
        *("--mount", "--propagation=private", "--pid", "--fork", "--kill-child=KILL"),
        *("sh", "-c", mount, "sh", str(layout)),
        *unpack.located(["setpriv"]),
        *(f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"),
        *("--bounding-set=-all", "--no-new-privs", "--pdeathsig=KILL"),
        *unpack.located(["skopeo"]),
        # Who signed an image is not asked: its digest is its identity, and the person chose the registry.
        *("copy", "--insecure-policy", "--quiet", "--retry-times=2"),
        *(["--src-tls-verify=false"] if source.insecure else []),
        *(source.reference, f"oci:{_PLACE}"),
    ]


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/nonexistent",
        "TMPDIR": _PLACE,
    } | passed


async def _ended(
    process: asyncio.subprocess.Process,
    layout: Path,
    timeout_s: float,
    stall_s: float,
    progress: PullProgress,
) -> str:
    """Its words, once it has ended. Looks at what is there meanwhile: skopeo tells nobody how far it is."""
    assert process.stderr is not None
    reading = asyncio.ensure_future(_last_words(process.stderr))
    loop = asyncio.get_running_loop()
    began = grew = loop.time()
    seen = 0
    try:
        while True:
            done, _ = await asyncio.wait([reading], timeout=_LOOK_EVERY_S)
            if done:
                await process.wait()
                return reading.result()
            now, size = loop.time(), await to_end(_size_bytes, layout)
            if size != seen:
                seen, grew = size, now
                await progress(size)
            if now - grew > stall_s or now - began > timeout_s:
                raise TimedOut(
                    f"the registry sent nothing for {stall_s:g} s, or not all in {timeout_s:g} s",
                    hint="look at the registry and at the host's network, then pull again",
                )
    finally:
        reading.cancel()


async def _last_words(stream: asyncio.StreamReader) -> str:
    tail = b""
    while piece := await stream.read(_WORDS_BYTES):
        tail = (tail + piece)[-_WORDS_BYTES:]
    return tail.decode(errors="replace")


def _size_bytes(layout: Path) -> int:
    """Of all files in it, of a few thousand at most."""
    total = count = 0
    for folder, _, names in os.walk(layout):
        for name in names:
            count += 1
            if count > _FILES_LIMIT:
                return total
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total


def _failure(reference: str, words: str) -> VerackError:
    found = _MESSAGE.findall(words)
    said = unpack.printable(found[-1].replace('\\"', '"') if found else words)
    for sign, kind, hint in _KINDS:
        if sign.lower() in said.lower():
            return kind(f"{reference} can't be pulled: {said}", hint=hint)
    return RemoteFailed(f"{reference} can't be pulled: {said}", hint="look at the registry's log")
