"""Ids, events, ends, console and configuration of the agent."""

import io
from pathlib import Path

import grpc
import grpc.aio
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from veagent import ends, events, streams
from veagent.config import load
from veagent.consolelog import tail_offset
from veagent.hostparts import net_settings
from veagent.ids import RANGE_SIZE, IdRanges
from veagent.main import main
from veagent.manager import NETWORK_RETRY_S
from veagent.ports import Ended, EndKind
from veapi.errors import InvalidInput, RemoteFailed, Unavailable
from veapi.model import Event

# Ids.


def test_every_ve_gets_a_range_of_its_own_until_none_is_left() -> None:
    ids = IdRanges(base=1_000_000, count=3)
    given_out = [ids.allocate() for _ in range(3)]
    assert given_out == [1_000_000, 1_065_536, 1_131_072]
    with pytest.raises(RemoteFailed, match="no id range is left"):
        ids.allocate()
    ids.release(given_out[1])
    assert ids.allocate() == given_out[1]


def test_what_records_hold_is_not_given_again_even_from_another_configuration() -> None:
    ids = IdRanges(base=1_000_000, count=4)
    ids.take([1_000_000, 1_065_536 + 10])
    assert ids.allocate() == 1_000_000 + 3 * RANGE_SIZE


@given(st.lists(st.one_of(st.none(), st.integers(0, 7)), max_size=60))
def test_never_are_ranges_shared(actions: list[int | None]) -> None:
    ids = IdRanges(base=1_000_000, count=8)
    held: list[int] = []
    for action in actions:
        if action is None:
            if len(held) < 8:
                base = ids.allocate()
                assert all(abs(base - other) >= RANGE_SIZE for other in held)
                held.append(base)
        elif held:
            ids.release(held.pop(action % len(held)))


def test_impossible_ranges_are_refused() -> None:
    with pytest.raises(InvalidInput):
        IdRanges(base=0, count=1)
    with pytest.raises(InvalidInput):
        IdRanges(base=1_000_000, count=70_000)


# Ends and events.


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (9, "init was killed by signal 9"),
        (11, "init was killed by signal 11 (SIGSEGV)"),
        (7 << 8, "init exited with 7"),
        (None, "init ended unexpectedly"),
    ],
)
def test_an_end_is_told_in_words(status: int | None, sentence: str) -> None:
    assert events.end_sentence(Ended(EndKind.CRASH, status)) == sentence


def test_the_first_crash_is_answered_at_once_however_young_the_ve_is() -> None:
    first = ends.judge(Ended(EndKind.CRASH), lived_s=0.1, quick_ends=0)
    assert first.delay_s == 0
    second = ends.judge(Ended(EndKind.CRASH), lived_s=0.1, quick_ends=first.quick_ends)
    assert second.delay_s == 1
    after_life = ends.judge(Ended(EndKind.CRASH), lived_s=100.0, quick_ends=9)
    assert (after_life.delay_s, after_life.quick_ends) == (0, 0)


def test_events_are_few_and_a_repetition_pushes_nothing_out() -> None:
    story: tuple[Event, ...] = ()
    for at in range(30):
        story = events.add(story, events.normal(at, "h1", f"R{at}", "x"))
    assert [event.reason for event in story] == [f"R{at}" for at in range(10, 30)]
    again = events.add(story, events.normal(99, "h1", "R29", "x"))
    assert len(again) == 20
    assert (again[-1].at, again[0]) == (99, story[0])


# Console.


@given(st.text(alphabet="ab\n", max_size=200), st.integers(1, 12))
def test_the_tail_is_the_last_lines(text: str, lines: int) -> None:
    raw = text.encode()
    offset, found = tail_offset(io.BytesIO(raw), lines)
    assert found == min(lines, len(raw.splitlines()))
    assert raw[offset:] == b"".join(raw.splitlines(keepends=True)[-lines:])


# Configuration.

GOOD = """\
host = "h1"
cluster = "rack"
controllers = ["10.88.0.1:7443"]
address = "10.88.0.11"
state = "/var/lib/verack/agent"
[tls]
ca = "/t/ca.crt"
cert = "/t/tls.crt"
key = "/t/tls.key"
[pool]
kind = "loop"
path = "/var/lib/verack/pool.img"
size = "10G"
mount = "/var/lib/verack/pool"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return path


def test_a_good_configuration_has_sane_defaults(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD))
    assert (config.runtime, config.cgroup_root) == ("lxc", "verack/h1")
    assert config.peer_listen == "10.88.0.11:7444"
    assert config.pool is not None
    assert config.pool.size_bytes == 10 << 30
    assert load(written(tmp_path, GOOD), runtime="fake").runtime == "fake"


def test_ves_are_kept_from_the_ports_that_the_configuration_names(tmp_path: Path) -> None:
    usual = net_settings(load(written(tmp_path, GOOD)))
    assert usual.guarded_ports == (7443, 7444, 7480, 7481)
    text = GOOD.replace("10.88.0.1:7443", "10.88.0.1:9443").replace("10.88.0.11", "10.88.0.12")
    text += '[peer]\nlisten = "10.88.0.12:9444"\n[metrics]\nlisten = "10.88.0.12:9481"\n'
    settings = net_settings(load(written(tmp_path, text)))
    assert settings.guarded_ports == (7443, 7444, 7480, 7481, 9443, 9444, 9481)
    assert settings.guarded_hosts == ("10.88.0.1",)
    assert settings.local_address == "10.88.0.12"
    assert settings.recheck_s < NETWORK_RETRY_S  # else a round of the manager's looks at nothing
    free = load(written(tmp_path, GOOD + '[peer]\nlisten = "10.88.0.11:0"\n'))
    assert net_settings(free).guarded_ports == usual.guarded_ports


def test_the_example_is_good() -> None:
    assert load(Path(__file__).parents[2] / "deploy/config/agent.toml").host == "h1"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('host = "h1"', 'host = "h1"\nhots = 1', "`hots`"),
        ('size = "10G"', 'sise = "10G"', "`sise` - at `$.pool`"),
        ('host = "h1"', 'host = "H_1"', "host"),
        ('address = "10.88.0.11"', 'address = "nowhere"', "address"),
        ('state = "/var', 'state = "var', "state: 'var/lib/verack/agent' is relative"),
        ('mount = "/var', 'mount = "var', "pool.mount"),
        ('"10.88.0.1:7443"', '"10.88.0.1"', "controllers"),
        ('["10.88.0.1:7443"]', "[]", "controllers: is empty"),
        ('size = "10G"', 'size = "big"', "pool.size"),
        ('kind = "loop"', 'kind = "zfs"', "$.pool.kind"),
        ('[pool]\nkind = "loop"', '[capacity]\ncpu = "x"\n[pool]\nkind = "loop"', "capacity.cpu"),
        ("[pool]", "[pool", "agent.toml"),
    ],
)
def test_a_bad_configuration_names_file_and_field(
    tmp_path: Path, before: str, after: str, told: str
) -> None:
    assert before in GOOD
    with pytest.raises(InvalidInput) as caught:
        load(written(tmp_path, GOOD.replace(before, after, 1)))
    assert told in caught.value.message
    assert "agent.toml" in caught.value.message
    assert caught.value.hint


def test_the_program_tells_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("[pool]", "[pond]"))
    ended = CliRunner().invoke(main, ["--config", str(path)])
    assert ended.exit_code == 2
    assert "`pond`" in ended.stderr
    assert "hint:" in ended.stderr
    assert "Traceback" not in ended.output


def test_a_missing_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        load(tmp_path / "none.toml")


def test_a_broken_stream_is_told_in_few_words_and_one_line() -> None:
    broken = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        details="Failed\nexecute_batch",
    )
    assert streams._why(broken) == "the other side ended it (INTERNAL)"
    assert streams._why(Unavailable("the stream is over")) == "the stream is over"
