"""The example of docs/placement/quotas.md comes out as it says."""

import re
import shlex

from kit.apirig import NO_CONTEXT, api_rig
from kit.placementdoc import PAGES, block, ves_of
from veapi import codec, units
from veapi.errors import Conflict
from veapi.v1 import api_pb2, types_pb2


async def test_the_example_of_quotas_comes_out_as_it_says():
    page = (PAGES[0].parent / "quotas.md").read_text()
    (command,) = re.findall(r"^vectl project set .*$", page, re.MULTILINE)
    name, *options = shlex.split(command)[3:]
    asked = dict(zip(options[::2], options[1::2], strict=True))
    assert asked.keys() == {"--ves", "--memory"}
    quota = types_pb2.ProjectAmounts(
        ves=int(asked["--ves"]), memory_bytes=units.parse_size(asked["--memory"])
    )
    lines = []
    async with api_rig() as rig:
        request = api_pb2.SetProjectRequest(name=name, quota=quota, fields=["ves", "memory_bytes"])
        await rig.project.Set(request, NO_CONTEXT)
        for ve in ves_of(block(page, "yaml")):
            message = types_pb2.VE(name=ve.name, spec=codec.spec_out(ve.spec))
            try:
                await rig.ve.Create(api_pb2.CreateVERequest(ve=message), NO_CONTEXT)
                lines.append(f"{ve.name} created")
            except Conflict as refused:
                lines.append(f"{ve.name}: {refused.message}")
    assert lines == block(page, "result").splitlines()
