"""nftables within this process: a thin binding of libnftables, which Debian's package `nftables` brings.

A command by the `nft` program costs a process, 4 ms; here it is 0.1 ms, which counts at each start of a VE. All commands
of one text are one transaction of the kernel. The library is not safe for two threads at once, so it has one of its own;
the loop's shared threads are busy with disks when many VEs start.
"""

import asyncio
import ctypes
from concurrent.futures import ThreadPoolExecutor

import msgspec

from veapi.errors import RemoteFailed

_LIBRARY = "libnftables.so.1"
_JSON_OUTPUT = 1 << 4
_WORDS_LIMIT = 500


class ListedTable(msgspec.Struct, frozen=True):
    family: str
    name: str


class ListedChain(msgspec.Struct, frozen=True):
    family: str
    table: str
    name: str


class Concat(msgspec.Struct, frozen=True):
    concat: list[str]


class ListedSet(msgspec.Struct, frozen=True):
    family: str
    table: str
    name: str
    elem: list[Concat] = []


class Listed(msgspec.Struct, frozen=True):
    """One object of a listing; other kinds are left out."""

    table: ListedTable | None = None
    chain: ListedChain | None = None
    set: ListedSet | None = None


class _Listing(msgspec.Struct, frozen=True):
    nftables: list[Listed]


class Nft:
    """A context of libnftables in the network namespace of this process. `close` releases it."""

    def __init__(self) -> None:
        self._library = _load()
        self._context: int | None = self._library.nft_ctx_new(0)
        if self._context is None:
            raise RemoteFailed("libnftables gives no context", hint="is there memory left?")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nft")

    async def run(self, commands: str) -> None:
        """Carries out all commands, or none: RemoteFailed with the words of nft."""
        if commands:
            await self._in_thread(commands, 0)

    async def list(self, command: str) -> list[Listed]:
        """What a `list …` command shows."""
        output = await self._in_thread(command, _JSON_OUTPUT)
        return msgspec.json.decode(output, type=_Listing).nftables

    def close(self) -> None:
        """Idempotent; waits for a command that runs."""
        self._thread.shutdown(cancel_futures=True)
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None

    async def _in_thread(self, commands: str, flags: int) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._run, commands, flags)

    def _run(self, commands: str, flags: int) -> bytes:
        self._library.nft_ctx_output_set_flags(self._context, flags)
        code = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if code != 0:
            words = " ".join(errors.decode(errors="replace").split())[:_WORDS_LIMIT]
            raise RemoteFailed(
                f"nftables refused a rule: {words}",
                hint="the agent needs root, and a kernel with nf_tables for bridge, inet and NAT",
            )
        return output


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise RemoteFailed(
            f"{_LIBRARY} is missing: {error}", hint="apt-get install nftables"
        ) from None
    context, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_output_set_flags", None, [context, ctypes.c_uint]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, text]),
        ("nft_ctx_get_output_buffer", text, [context]),
        ("nft_ctx_get_error_buffer", text, [context]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
