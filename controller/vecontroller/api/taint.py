"""Taints of hosts: what operators say that VEs must tolerate to get there."""

import msgspec

from veapi import validate, wishes
from veapi.errors import InvalidInput
from veapi.model import HostName, HostSpec
from veapi.v1 import scheduler_pb2
from vecontroller.api.commits import ATTEMPTS, settle, worn_out
from vecontroller.api.lookup import find_host
from vecontroller.api.ports import ApiDeps
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.writer import LostRace

TAINTS_LIMIT = 16


async def taint(deps: ApiDeps, request: scheduler_pb2.TaintHostRequest) -> HostName:
    """The host, tainted so; what it has already is written no more. NotFound when there is no such host."""
    name = HostName(validate.name("host", request.host))
    find_host(deps.mirror.view, name)
    for attempt in range(1, ATTEMPTS + 1):
        held = deps.mirror.view.host_specs.get(name)
        before = held.value if held is not None else HostSpec()
        after = _changed(before, request)
        if after == before:
            return name
        try:
            await _commit(deps, name, after, held.mod_revision if held is not None else 0)
        except LostRace as lost:
            await settle(deps, lost, attempt)
        else:
            return name
    raise worn_out(f"host {name}")


def _changed(before: HostSpec, request: scheduler_pb2.TaintHostRequest) -> HostSpec:
    """One taint of a key; in the order of keys."""
    found = {wishes.taint_of(text).key: text for text in before.taints}
    for key in request.remove:
        found.pop(validate.label_key("remove", key), None)
    for text in request.add:
        read = wishes.taint_of(wishes.taint("add", text))
        found[read.key] = str(read)
    if len(found) > TAINTS_LIMIT:
        raise InvalidInput(f"add: {len(found)} taints; at most {TAINTS_LIMIT}", hint="remove some")
    return msgspec.structs.replace(before, taints=tuple(found[key] for key in sorted(found)))


async def _commit(deps: ApiDeps, name: HostName, spec: HostSpec, revision: int) -> None:
    key, op_id = keys.host_spec(name), deps.ids.new()
    value = values.encode_host_spec(msgspec.structs.replace(spec, op_id=op_id))
    await deps.writer.commit(
        [Guard(key=key, mod_revision=revision)],
        [Put(key=key, value=value)],
        confirm=(key, op_id),
    )
