"""Snapshots of VEs: take, delete, restore."""

from typing import NoReturn

from veapi.errors import Unavailable
from veapi.model import VE
from veapi.v1 import api_pb2
from vecontroller.api.lookup import find_ve
from vecontroller.api.ports import ApiDeps
from vecontroller.view import Held


async def take(deps: ApiDeps, request: api_pb2.SnapshotRef) -> Held[VE]:
    """A new snapshot of the root as it is now."""
    _refuse(deps, request)


async def delete(deps: ApiDeps, request: api_pb2.SnapshotRef) -> Held[VE]:
    """Has the host remove it."""
    _refuse(deps, request)


async def restore(deps: ApiDeps, request: api_pb2.SnapshotRef) -> Held[VE]:
    """Makes the root anew of the snapshot."""
    _refuse(deps, request)


def _refuse(deps: ApiDeps, request: api_pb2.SnapshotRef) -> NoReturn:
    find_ve(deps.mirror.view, request.ve)
    raise Unavailable("snapshots are not served yet", hint="use a newer controller")
