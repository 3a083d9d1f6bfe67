"""What vefence decides, and what it makes of its notes."""

import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vefence import notes
from vefence.core import Told, decide, expired, expired_since, next_look_s
from vefence.host import boot_id
from vefence.loop import Settings
from vefence.main import Wrong, settings_of
from vefence.notes import Beat, KillList, Lease, Reader, Spoilt, Target

BOOT = boot_id()
LEASE = Lease(BOOT, 7, 100.0, 2.0)
LIST = KillList(BOOT, 8, "verack/h1", (Target("a", "va", 1), Target("b", "", 2)))
TOLD = Told(LEASE, LIST)
TIMES = st.floats(0, 1000)
LEASES = st.none() | st.builds(
    Lease, st.just(BOOT), st.integers(1, 9), st.none() | TIMES, st.floats(0.1, 5)
)
UIDS = st.sets(st.sampled_from("abcdef"))


def listed(uids: set[str]) -> KillList:
    return KillList(BOOT, 1, "root", tuple(Target(uid, f"v{uid}", 1) for uid in sorted(uids)))


@given(TIMES, LEASES, UIDS, UIDS, TIMES, st.booleans())
def test_never_touches_what_is_not_listed_or_still_may_run(
    now, lease, on_list, alive, since, boots
):
    told = Told(lease, listed(on_list))
    plan = decide(now, told, alive, since=since, reboots=boots)
    touched = {target.uid for target in (*plan.kill, *plan.cut)}
    assert touched <= on_list & alive
    if lease is not None and (lease.deadline is None or now < lease.deadline):
        assert not touched
        assert not plan.reboot
    assert boots or not plan.reboot
    assert plan.pet != plan.reboot


@given(TIMES, LEASES, UIDS, UIDS)
def test_kills_all_that_lives_on_the_list_once_the_lease_has_run_out(now, lease, on_list, alive):
    told = Told(lease, listed(on_list))
    if lease is None or (lease.deadline is not None and now >= lease.deadline):
        plan = decide(now, told, alive, since=now, reboots=False)
        assert {target.uid for target in plan.kill} == on_list & alive


def test_a_card_goes_down_only_after_the_time_for_killing_and_the_host_only_after_that():
    def at(now: float):
        return decide(now, TOLD, {"a"}, since=100.0, reboots=True)

    assert (at(101.9).cut, at(101.9).kill) == ((), (LIST.targets[0],))
    assert (at(102.0).cut, at(102.0).reboot) == ((LIST.targets[0],), False)
    assert (at(102.6).reboot, at(102.6).pet) == (True, False)
    assert not decide(102.6, TOLD, {"a"}, since=100.0, reboots=False).reboot
    assert not decide(200.0, TOLD, set(), since=100.0, reboots=True).reboot


def test_a_list_without_a_lease_has_run_out_and_an_empty_list_never_does():
    assert expired(0.0, Told(None, LIST))
    assert not expired(1e9, Told(LEASE, listed(set())))
    assert not expired(1e9, Told())
    assert not expired(1e9, Told(replace(LEASE, deadline=None), LIST))


def test_it_ran_out_at_the_deadline_or_when_that_was_first_seen():
    assert expired_since(105.0, TOLD, None) == 100.0
    assert expired_since(105.0, Told(None, LIST), None) == 105.0
    assert expired_since(109.0, Told(None, LIST), 105.0) == 105.0
    assert expired_since(99.0, TOLD, 5.0) is None


def test_it_looks_again_at_the_deadline_and_not_later():
    assert next_look_s(99.9, TOLD, idle_s=0.25) == pytest.approx(0.1)
    assert next_look_s(50.0, TOLD, idle_s=0.25) == 0.25
    assert next_look_s(200.0, TOLD, idle_s=0.25) == 0.25


# Notes.


@pytest.mark.parametrize("note", [LEASE, replace(LEASE, deadline=None), LIST, Beat(BOOT, 1, 2.0)])
def test_a_note_comes_back_as_it_was_written(note):
    assert notes.decode(notes.encode(note), type(note)) == note


@given(st.data())
def test_a_note_that_is_cut_or_rotten_is_spoilt(data):
    whole = notes.encode(LIST)
    place = data.draw(st.integers(0, len(whole) - 2))
    flipped = bytes([whole[place] ^ (1 << data.draw(st.integers(0, 7)))])
    for damaged in (whole[:place], whole[:place] + flipped + whole[place + 1 :]):
        with pytest.raises(Spoilt):
            notes.decode(damaged, KillList)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"targets": [{"uid": 1}]}', b"null", b"\xff"])
def test_a_note_with_other_fields_is_spoilt(body):
    with pytest.raises(Spoilt):
        notes.decode(b"%08x\n%s\n" % (zlib.crc32(body), body), KillList)


def test_what_is_spoilt_gone_or_of_another_boot_leaves_what_was_read_before(tmp_path: Path):
    path = tmp_path / "lease"
    said: list[str] = []
    reader = Reader(path, Lease, BOOT, complain=said.append)
    assert reader.look() is None
    notes.replace(path, LEASE)
    assert reader.look() == LEASE
    path.write_text("rubbish")
    assert reader.look() == LEASE
    assert len(said) == 1
    path.unlink()
    assert reader.look() == LEASE
    notes.replace(path, replace(LEASE, boot_id="another", seq=9))
    assert reader.look() == LEASE
    notes.replace(path, replace(LEASE, seq=10))
    assert reader.look() == replace(LEASE, seq=10)


# Its configuration.


def test_it_reads_the_agents_configuration(tmp_path: Path):
    path = tmp_path / "agent.toml"
    path.write_text('host = "h1"\n')
    assert settings_of(path) == Settings(Path("/run/verack/h1/fence"))
    path.write_text('host = "h1"\n[fence]\nfolder = "/x"\nwatchdog = "/dev/w"\nreboot = true\n')
    assert settings_of(path) == Settings(Path("/x"), Path("/dev/w"), reboot=True)


@pytest.mark.parametrize(
    "text",
    ["", "host = 1", 'host = "h"\nfence = 1', 'host = "h"\n[fence]\nreboot = "yes"', "host ="],
)
def test_a_configuration_that_can_not_work_is_told(tmp_path: Path, text: str):
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(Wrong, match=r"agent\.toml"):
        settings_of(path)
    with pytest.raises(Wrong):
        settings_of(tmp_path / "none")
