"""A VE whose init is a command of its image: real LXC, arguments, users, folders and environments as they are written."""

import dataclasses

import pytest

from kit.eventually import eventually
from kit.realves import LIMITS, lab
from veagent.ports import StartPlan
from veagent.runtime.program import program_of
from veapi.errors import Conflict, InvalidInput, VerackError
from veapi.model import Uid

SHOW = """
for word do printf '[%s]\\n' "$word"; done
printf 'who=%s:%s (%s)\\n' "$(id -u)" "$(id -g)" "$(id -G)"
printf 'cwd=%s\\nhome=%s\\npath=%s\\n' "$PWD" "$HOME" "$PATH"
printf 'odd=[%s]\\n' "$ODD"
echo told
exec sleep 1000
"""
ARGUMENTS = (
    "two words",
    'a "quote"',
    "an 'apostrophe'",
    "both \" and '",
    "",
    "new\nline",
    "$HOME `id`",
    "--",
    "-n",
    "ü",
)


@pytest.fixture
async def place():
    async with lab() as made:
        yield made


async def console(place, plan):
    path = place.runtime.console(plan.uid)
    await eventually(lambda: path.exists() and b"told" in path.read_bytes())
    return path.read_bytes().decode().replace("\r\n", "\n")


async def test_arguments_reach_the_command_as_they_are(place):
    plan = place.plan(command=("/bin/sh", "-c", SHOW, "sh", *ARGUMENTS))
    await place.runtime.start(plan)
    said = await console(place, plan)
    assert said.startswith("".join(f"[{word}]\n" for word in ARGUMENTS))


async def test_it_runs_as_its_user_in_its_folder_with_its_environment(place):
    plan = place.plan(
        command=("/bin/sh", "-c", SHOW),
        user="web",
        cwd="/srv/a b",
        environment={"ODD": "x=\"1\" '2' #3 \\4", "PATH": "/bin:/usr/bin:/opt"},
    )
    (plan.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:44::/srv:/bin/sh\n")
    (plan.root / "etc/group").write_text("web:x:44:\nextra:x:55:root,web\n")
    (plan.root / "srv/a b").mkdir(parents=True)
    await place.runtime.start(plan)
    said = await console(place, plan)
    assert "who=33:44 (44)\n" in said
    assert "cwd=/srv/a b\nhome=/srv\npath=/bin:/usr/bin:/opt\n" in said
    assert "odd=[x=\"1\" '2' #3 \\4]\n" in said


async def test_a_number_needs_no_entry_and_a_group_may_be_named(place):
    plan = place.plan(command=("/bin/sh", "-c", SHOW), user="1234:5678")
    await place.runtime.start(plan)
    assert "who=1234:5678 (5678)\n" in await console(place, plan)


async def test_a_command_that_ends_ends_the_ve_with_its_code(place):
    instance = await place.runtime.start(place.plan(command=("/bin/sh", "-c", "sleep 0.3; exit 7")))
    ended = await instance.ended()
    assert ended.wait_status in {7 << 8, None}


async def test_a_command_is_asked_to_end_by_the_signal_that_it_heeds(place):
    script = "trap 'echo bye; exit 3' TERM; echo told; while :; do sleep 0.05; done"
    plan = place.plan(command=("/bin/sh", "-c", script))
    instance = await place.runtime.start(plan)
    await console(place, plan)
    await place.runtime.stop(instance, timeout_s=10)
    assert "bye" in await console(place, plan)


async def test_a_command_that_is_not_there_is_an_error_that_says_so(place):
    plan = place.plan(command=("/bin/nowhere",))
    with pytest.raises(VerackError) as refused:
        instance = await place.runtime.start(plan)
        await instance.ended()
        raise VerackError("it ended at once")
    assert refused.value.message


async def test_users_are_not_looked_up_on_the_host(place, tmp_path):
    plan = place.plan(command=("/bin/true",), user="onlyhere")
    hostile = tmp_path / "passwd"
    hostile.write_text("onlyhere:x:0:0::/:/bin/sh\n")
    passwd = plan.root / "etc/passwd"
    passwd.unlink(missing_ok=True)
    passwd.symlink_to(hostile)
    with pytest.raises(Conflict, match="no user onlyhere"):
        program_of(plan)
    passwd.unlink()
    passwd.symlink_to("../" * 30 + str(hostile).lstrip("/"))
    with pytest.raises(Conflict, match="no user onlyhere"):
        program_of(plan)
    passwd.unlink()
    passwd.symlink_to("/proc/self/environ")
    with pytest.raises(Conflict, match="no user onlyhere"):
        program_of(plan)


def a_plan(root, **changes):
    plan = StartPlan(
        uid=Uid("u"), hostname="h", root=root, id_base=1 << 20, limits=LIMITS, nic=None
    )
    return dataclasses.replace(plan, command=("/x",), **changes)


@pytest.mark.parametrize("user", ["65536", "-1", "4294967295", "root\n", "0:nogroup", "1abc"])
def test_odd_users_are_refused(tmp_path, user):
    plan = a_plan(tmp_path, user=user)
    with pytest.raises(Conflict):
        program_of(plan)


@pytest.mark.parametrize("cwd", ["relative", "/a\nlxc.cap.drop =", "/ends ", "/nul\0"])
def test_odd_folders_are_refused(tmp_path, cwd):
    plan = a_plan(tmp_path, cwd=cwd)
    with pytest.raises(InvalidInput):
        program_of(plan)
