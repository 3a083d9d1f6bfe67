"""What the client asks of VEs that exist beside what it asks of new ones: run, set, rename, clone, rebuild, delete and back."""

from collections.abc import Mapping, Sequence

from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vectl import wire
from vectl.context import Context
from vectl.wanted import Wanted, wire_names

VE = types_pb2.VE


class Verbs:
    """One call each. All raise veapi.errors; `project` arguments default to the context's."""

    context: Context
    ves: "api_pb2_grpc.VEServiceAsyncStub"

    def ref(self, name: str, *, project: str = "", uid: str = "") -> api_pb2.VERef:
        return api_pb2.VERef(project=project or self.context.project, name=name, uid=uid)

    async def set_run(
        self,
        name: str,
        run: str,
        *,
        stop_timeout_s: int = 0,
        force: bool = False,
        only_from: str = "",
    ) -> VE:
        """`run` is running, stopped or frozen. A clean stop is killed after `stop_timeout_s` (0: the default), or at once.

        With `only_from`: Conflict when something else than that (or `run`) is asked of it so far.
        """
        request = api_pb2.SetRunRequest(
            ve=self.ref(name),
            run=run,
            stop_timeout_s=stop_timeout_s,
            force=force,
            only_from=only_from,
        )
        return await wire.unary(self.ves.SetRun, request, context=self.context)

    async def restart(self, name: str, *, stop_timeout_s: int = 0, force: bool = False) -> VE:
        request = api_pb2.RestartRequest(
            ve=self.ref(name), stop_timeout_s=stop_timeout_s, force=force
        )
        return await wire.unary(self.ves.Restart, request, context=self.context)

    async def set(self, name: str, changes: api_pb2.SetVERequest) -> VE:
        """`changes`: all of the request but which VE. Conflict: it needs a restart. NoHostFits: its host has too little."""
        request = api_pb2.SetVERequest()
        request.CopyFrom(changes)
        request.ve.CopyFrom(self.ref(name))
        return await wire.unary(self.ves.Set, request, context=self.context)

    async def rename(self, name: str, new_name: str) -> VE:
        """Conflict when the new name is taken."""
        request = api_pb2.RenameVERequest(ve=self.ref(name), name=new_name)
        return await wire.unary(self.ves.Rename, request, context=self.context)

    async def clone(self, source: str, wanted: Wanted, *, snapshot: str, request_id: str) -> VE:
        """What is set in `wanted` replaces what the source has. Conflict: the source has no root yet."""
        request = api_pb2.CloneVERequest(
            source=self.ref(source),
            snapshot=snapshot,
            ve=self._message(wanted),
            request_id=request_id,
            fields=wire_names(wanted.given),
        )
        return await wire.unary(self.ves.Clone, request, context=self.context)

    async def rebuild(self, name: str, image: str = "", *, stop_timeout_s: int = 0) -> VE:
        """A new root from that image; from the VE's own when it is empty."""
        request = api_pb2.RebuildVERequest(
            ve=self.ref(name), image=image, stop_timeout_s=stop_timeout_s
        )
        return await wire.unary(self.ves.Rebuild, request, context=self.context)

    async def delete(
        self, name: str, *, project: str = "", uid: str = "", purge: bool = False
    ) -> VE:
        """With `uid`: Conflict when the VE of that name is another one."""
        ref = self.ref(name, project=project, uid=uid)
        request = api_pb2.DeleteVERequest(ve=ref, purge=purge)
        return await wire.unary(self.ves.Delete, request, context=self.context)

    async def undelete(self, name: str, *, uid: str = "", new_name: str = "") -> VE:
        """By uid, or by name. Conflict when the name is taken, or several of it are kept."""
        request = api_pb2.UndeleteVERequest(ve=self.ref(name, uid=uid), name=new_name)
        return await wire.unary(self.ves.Undelete, request, context=self.context)

    async def purge(self, name: str, *, uid: str = "") -> VE:
        """Removes a deleted VE for good."""
        return await wire.unary(self.ves.Purge, self.ref(name, uid=uid), context=self.context)

    async def deleted(
        self, *, selector: str = "", all_projects: bool = False, names: Sequence[str] = ()
    ) -> list[VE]:
        """The deleted VEs that are kept."""
        request = api_pb2.ListVEsRequest(
            project=self.context.project,
            all_projects=all_projects,
            selector=selector,
            names=names,
            deleted=True,
        )
        response = await wire.unary(self.ves.List, request, context=self.context)
        return list(response.ves)

    def _message(self, wanted: Wanted) -> VE:
        return VE(
            name=wanted.name,
            project=wanted.project or self.context.project,
            labels=dict(wanted.labels),
            spec=spec_message(wanted.spec()),
        )


def spec_message(values: Mapping[str, object]) -> types_pb2.VESpec:
    """Of fields by their names on the wire."""
    return types_pb2.VESpec(**dict(values))  # type: ignore[arg-type]  # each has its field's type
