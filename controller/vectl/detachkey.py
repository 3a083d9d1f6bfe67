"""The keys that leave a console, picked out of what is typed."""

from collections.abc import AsyncIterator

from veapi.errors import InvalidInput
from vectl.attached import Detached

DEFAULT = "ctrl-a,q"
_MOST_KEYS = 4
_HINT = "write 1 to 4 keys, e.g. ctrl-a,q or ctrl-],d"


def parse_keys(text: str, *, field: str = "detach-key") -> bytes:
    """`ctrl-a,q` as the two bytes that a terminal sends. InvalidInput for what no key sends."""
    keys = text.split(",")
    if len(keys) > _MOST_KEYS:
        raise InvalidInput(f"{field}: {len(keys)} keys; at most {_MOST_KEYS}", hint=_HINT)
    return bytes(_key(key, field) for key in keys)


def _key(key: str, field: str) -> int:
    name = key.lower().removeprefix("ctrl-")
    if key.lower().startswith("ctrl-") and len(name) == 1 and "@" <= name.upper() <= "_":
        return ord(name.upper()) - ord("@")
    if len(key) == 1 and " " < key <= "~":
        return ord(key)
    raise InvalidInput(f"{field}: {key[:20]!r} is no key", hint=_HINT)


class DetachKeys:
    """Passes on what is typed; the first of several keys typed twice is passed on once."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._seen = b""

    async def watch(self, typed: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Raises Detached once all keys came one after the other."""
        async for data in typed:
            if passed := self.feed(data):
                yield passed

    def feed(self, data: bytes) -> bytes:
        """What of it goes on. Raises Detached; what was typed before the keys is lost then."""
        return b"".join(self._take(bytes([key])) for key in data)

    def _take(self, key: bytes) -> bytes:
        before, self._seen = self._seen, self._seen + key
        if self._seen == self._keys:
            raise Detached
        if self._keys.startswith(self._seen):
            return b""
        self._seen = b""
        if before == key == self._keys[:1]:
            return key
        return before + (self._take(key) if before else key)
