"""Every key of the store, in one place: how it is made, and what a key that was read means.

All of them are below one root, so that an etcd may be shared with others.
"""

from enum import Enum

from veapi.model import Digest, HostName, Uid

ROOT = "/verack/"
CLUSTER = f"{ROOT}cluster/config"
LEADER = f"{ROOT}leader"
BEAT = f"{ROOT}leader/beat"
FENCE = f"{ROOT}leader/fence"


class Kind(Enum):
    """What a key holds. The value is its folder, or the whole key of a single one."""

    VE_SPEC = "ve/spec"
    VE_NAME = "ve/name"
    VE_PLACEMENT = "ve/placement"
    VE_STATUS = "ve/status"
    VE_DELETED = "ve/deleted"
    VE_LEFT = "ve/left"
    ADDRESS = "addr"
    HOST_SPEC = "host/spec"
    HOST_STATUS = "host/status"
    IMAGE = "image/digest"
    IMAGE_TAG = "image/tag"
    PROJECT = "project"
    GROUP = "group/spec"
    GROUP_STATUS = "group/status"
    CLUSTER = "cluster/config"
    LEADER = "leader"
    BEAT = "leader/beat"
    FENCE = "leader/fence"


_SINGLE = {CLUSTER: Kind.CLUSTER, LEADER: Kind.LEADER, BEAT: Kind.BEAT, FENCE: Kind.FENCE}
_FOLDERS = {kind.value: kind for kind in Kind if kind not in _SINGLE.values()}
_IN_PAIRS = (Kind.VE_NAME, Kind.VE_LEFT, Kind.ADDRESS, Kind.GROUP, Kind.GROUP_STATUS)


def ve_spec(uid: Uid) -> str:
    return _key(Kind.VE_SPEC, uid)


def ve_name(project: str, name: str) -> str:
    return _key(Kind.VE_NAME, project, name)


def ve_placement(uid: Uid) -> str:
    return _key(Kind.VE_PLACEMENT, uid)


def ve_status(uid: Uid) -> str:
    return _key(Kind.VE_STATUS, uid)


def ve_deleted(uid: Uid) -> str:
    return _key(Kind.VE_DELETED, uid)


def ve_left(host: HostName, uid: Uid) -> str:
    return _key(Kind.VE_LEFT, host, uid)


def address(network: str, ip: str) -> str:
    return _key(Kind.ADDRESS, network, ip)


def host_spec(name: HostName) -> str:
    return _key(Kind.HOST_SPEC, name)


def host_status(name: HostName) -> str:
    return _key(Kind.HOST_STATUS, name)


def image(digest: Digest) -> str:
    return _key(Kind.IMAGE, digest)


def image_tag(name: str) -> str:
    return _key(Kind.IMAGE_TAG, name)


def project(name: str) -> str:
    return _key(Kind.PROJECT, name)


def group(project: str, name: str) -> str:
    return _key(Kind.GROUP, project, name)


def group_status(project: str, name: str) -> str:
    return _key(Kind.GROUP_STATUS, project, name)


def _key(kind: Kind, *parts: str) -> str:
    assert all(parts), f"empty part in a key of {kind.value}"
    return f"{ROOT}{kind.value}/{'/'.join(parts)}"


def parse(key: str) -> tuple[Kind, tuple[str, ...]] | None:
    """What the key holds, and the parts of its name. None: not a key of this version, to be left alone."""
    single = _SINGLE.get(key)
    if single is not None:
        return single, ()
    if not key.startswith(ROOT):
        return None
    kind, name = _folder(key.removeprefix(ROOT))
    if kind is None:
        return None
    parts = tuple(name.split("/", 1)) if kind in _IN_PAIRS else (name,)
    expected = 2 if kind in _IN_PAIRS else 1
    return (kind, parts) if len(parts) == expected and all(parts) else None


def _folder(path: str) -> tuple[Kind | None, str]:
    first, _, rest = path.partition("/")
    if first in _FOLDERS:
        return _FOLDERS[first], rest
    second, _, name = rest.partition("/")
    return _FOLDERS.get(f"{first}/{second}"), name
