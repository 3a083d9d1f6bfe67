"""Machines that come as the same host, over real gRPC."""

import grpc
import msgspec
import pytest

from kit.etcds import lasting_etcd
from kit.eventually import eventually
from kit.leadingcontroller import Running, fresh_controller, make_identities
from kit.world import make_facts
from veapi.model import HostName, HostSpec
from vecontroller import switching
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put

H1 = HostName("h1")
MINE = make_facts(machine_id="a", boot_id="boot1")
REBOOTED = make_facts(machine_id="a", boot_id="boot2")
OTHER = make_facts(machine_id="b", boot_id="boot1")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with lasting_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    return make_identities(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def running(etcd, identities):
    async with fresh_controller(etcd, identities) as found:
        yield found


async def say(running: Running, **fields):
    """What operators say of h1."""
    held = running.core.mirror.view.host_specs.get(H1)
    spec = msgspec.structs.replace(held.value if held else HostSpec(), **fields)
    key = keys.host_spec(H1)
    await running.core.writer.commit(
        [Guard(key=key, mod_revision=held.mod_revision if held else 0)],
        [Put(key=key, value=values.encode_host_spec(spec))],
        confirm=None,
    )


async def refused(agent) -> str:
    await eventually(lambda: agent.ended is not None)
    assert agent.ended.code() is grpc.StatusCode.PERMISSION_DENIED
    return str(agent.ended.details())


def spec_of(running: Running) -> HostSpec:
    return running.core.mirror.view.host_specs[H1].value


async def test_a_second_machine_does_not_replace_the_one_that_is_heard(running):
    async with running.agent(facts=MINE) as mine:
        await eventually(lambda: mine.welcome)
        async with running.agent(facts=OTHER) as other:
            why = await refused(other)
            assert "machine a" in why
            assert "machine b" in why
        assert mine.ended is None
        assert running.core.sessions.connected(H1)


async def test_the_same_agent_that_dials_again_replaces_its_session_at_once(running):
    async with running.agent(facts=MINE) as first:
        await eventually(lambda: first.welcome)
        async with running.agent(facts=MINE) as second:
            await eventually(lambda: second.welcome and first.ended)


async def test_a_host_that_rebooted_gets_in_when_its_old_session_is_not_heard_any_more(running):
    async with running.agent(facts=MINE) as stuck:
        await eventually(lambda: stuck.welcome)
        async with running.agent(facts=REBOOTED) as early:
            assert "boot1" in await refused(early)

        async def gets_in():
            async with running.agent(facts=REBOOTED) as agent:
                await eventually(lambda: agent.welcome or agent.ended)
                return agent.welcome is not None

        for _ in range(100):
            if await gets_in():
                break
            await running.core.clock.sleep(0.1)
        else:
            pytest.fail("the host never got in")
        await eventually(lambda: stuck.ended)


async def test_another_machine_gets_in_only_by_an_operators_word(running):
    async with running.agent(facts=MINE) as mine:
        await eventually(lambda: running.core.mirror.view.hosts.get(H1) and mine.welcome)
    await eventually(lambda: not running.core.sessions.connected(H1))
    async with running.agent(facts=OTHER) as other:
        assert "another machine" in await refused(other)
    await say(running, replaced=True)
    async with running.agent(facts=OTHER) as other:
        await eventually(lambda: other.welcome)
        assert not spec_of(running).replaced


async def test_a_removed_host_loses_its_session_and_is_refused(running):
    async with running.agent(facts=MINE) as mine:
        await eventually(lambda: mine.welcome)
        await say(running, removed_at=1.0)
        assert "was removed" in await refused(mine)
    async with running.agent(facts=MINE) as again:
        assert "was removed" in await refused(again)


async def test_a_host_that_was_vouched_to_be_off_and_ran_is_let_in_cordoned(running):
    async with running.agent(facts=MINE) as mine:
        await eventually(lambda: running.core.mirror.view.hosts.get(H1) and mine.welcome)
        await say(running, powered_off_at=1.0, powered_off_by="ann")
        assert "vouched to be off" in await refused(mine)
    async with running.agent(facts=MINE) as again:
        await eventually(lambda: again.sets)
        assert spec_of(running).powered_off_at is None
        assert "ann" in spec_of(running).cordon_reason


async def test_a_host_that_was_vouched_to_be_off_and_boots_is_as_any_other(running):
    async with running.agent(facts=MINE) as mine:
        await eventually(lambda: running.core.mirror.view.hosts.get(H1) and mine.welcome)
    await say(running, powered_off_at=1.0, powered_off_by="ann")
    async with running.agent(facts=REBOOTED) as again:
        await eventually(lambda: again.welcome)
        assert (spec_of(running).powered_off_at, spec_of(running).cordoned) == (None, False)


async def test_hosts_are_told_that_the_cluster_is_disarmed_and_armed_again_by_itself(running):
    async with running.agent(facts=MINE) as agent:
        await eventually(lambda: agent.sets)
        held = running.core.mirror.view.cluster
        until = running.core.clock.wall() + 1.0
        off = switching.disarmed(held.value, until)
        await running.core.writer.commit(
            [Guard(key=keys.CLUSTER, mod_revision=held.mod_revision)],
            [Put(key=keys.CLUSTER, value=values.encode_cluster(off))],
            confirm=None,
        )
        await eventually(
            lambda: (agent.sets[-1].disarmed, agent.sets[-1].arming) == (True, off.arming)
        )
        await eventually(lambda: not agent.sets[-1].disarmed)
        assert agent.sets[-1].arming == off.arming + 1
