"""What is printed: tables, ages, progress, and nothing that a terminal would obey."""

import io
import json

import pytest

from veapi.v1.api_pb2 import ImportProgress
from veapi.v1.types_pb2 import VE, Event
from vectl.columns import HOST_COLUMNS, ve_columns
from vectl.commands.show import facts
from vectl.output import Printer, age, as_dict
from vectl.progress import Line, Lines, Meter, describe
from vectl.table import Column, Writer
from vectl.text import EscapeFilter, clean, one_line


def web(**status: str) -> VE:
    found = VE(name="web", project="default", uid="u1", labels={"tier": "web", "a": "b"})
    found.spec.cpu, found.spec.memory_bytes, found.spec.disk_bytes = 0.5, 1 << 30, 10 << 30
    found.spec.image, found.spec.pids, found.generation = "debian", 512, 3
    found.status.state = "Running"
    for key, value in status.items():
        setattr(found.status, key, value)
    return found


def test_the_list_of_ves_has_the_promised_columns(capsys: pytest.CaptureFixture[str]) -> None:
    ve = web(host="h1")
    ve.status.addresses.append("10.66.0.2")
    pending = web(state="Pending")
    pending.name = "a-long-name"
    Printer("table", ve_columns({"h1": "r1"}), prefix="ve/").many([ve, pending], [])
    assert capsys.readouterr().out == (
        "NAME         PROJECT  STATE    HOST  RACK  IP         CPU  MEM  DISK  AGE\n"
        "web          default  Running  h1    r1    10.66.0.2  0.5  1G   10G   -\n"
        "a-long-name  default  Pending  -     -     -          0.5  1G   10G   -\n"
    )


def test_wide_adds_columns_and_headers_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Printer("wide", ve_columns({}), prefix="ve/", headers=False).many([web()], [])
    assert capsys.readouterr().out == (
        "web  default  Running  -  -  -  0.5  1G  10G  -  512  debian  0  -  a=b,tier=web  -  u1\n"
    )


def test_names_and_json_and_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    Printer("name", ve_columns({}), prefix="ve/").many([web()], ["web"])
    assert capsys.readouterr().out == "ve/web\n"
    Printer("json", ve_columns({}), prefix="ve/").many([web()], ["web"])
    assert json.loads(capsys.readouterr().out) == {"items": [as_dict(web())]}
    Printer("yaml", ve_columns({}), prefix="ve/").many([web()], ["web"])
    assert capsys.readouterr().out.startswith("items:\n- name: web\n")


def test_json_has_proto_names_and_texts_for_64_bits() -> None:
    found = as_dict(web())
    assert found["resource_version"] == "0"
    assert found["spec"]["memory_bytes"] == str(1 << 30)  # type: ignore[index]
    assert found["status"]["restarts"] == "0"  # type: ignore[index]


def test_a_watched_change_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    Printer("json", ve_columns({}), prefix="ve/").later(web(), "web", "added")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"change": "added", "ve": as_dict(web())}


def test_later_rows_line_up_with_the_first_ones() -> None:
    writer = Writer(columns("A"), wide=False, colour=False)
    assert writer.lines(["long-one"], titles=True) == ["A         B", "long-one  8"]
    assert writer.lines(["x"], titles=False) == ["x         1"]


def columns(title: str) -> list[Column[str]]:
    """The row itself, and its length."""
    return [Column(title, str), Column("B", lambda row: str(len(row)))]


def test_colour_does_not_change_the_layout() -> None:
    plain = Writer(columns("STATE"), wide=False, colour=False).lines(["Running"], titles=True)
    painted = Writer(columns("STATE"), wide=False, colour=True).lines(["Running"], titles=True)
    assert painted[1] == "\x1b[32mRunning\x1b[0m  7"
    assert [clean(line).replace("[32m", "").replace("[0m", "") for line in painted] == plain


def test_cells_can_not_steer_the_terminal() -> None:
    evil = "a\x1b]0;title\x07\n\x9b2J\u202eb"
    [line] = Writer(columns("A")[:1], wide=False, colour=False).lines([evil], titles=False)
    assert line == "a]0;title 2Jb"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d"), (-5, "0s")],
)
def test_ages(seconds: int, text: str) -> None:
    event = Event()
    event.time.seconds = 1000
    assert age(event.time, now=1000 + seconds) == text
    assert age(Event().time, now=5) == ""


def test_hosts_show_what_is_committed() -> None:
    assert [column.title for column in HOST_COLUMNS if not column.wide] == [
        "NAME", "STATE", "RACK", "VES", "CPU", "MEM", "DISK", "PIDS",
    ]  # fmt: skip


def test_show_tells_what_is_known_and_leaves_out_what_is_not() -> None:
    lines = facts(web(reason="X", message="why\x07"))
    assert "Name:             web" in lines
    assert "Reason:           X: why" in lines
    assert not [line for line in lines if line.startswith("Started")]


def test_plain_progress_is_a_line_for_each_change() -> None:
    out = io.StringIO()
    lines = Lines(out)
    for found in (web(state="Creating", host="h1"), web(state="Creating", host="h1"), web()):
        lines.show(found, settled=0, total=1)
    assert out.getvalue() == "web: Creating on h1\nweb: Running\n"


def test_progress_on_a_terminal_is_one_line_that_is_wiped() -> None:
    out = io.StringIO()
    line = Line(out)
    line.show(web(state="Creating"), settled=2, total=3)
    line.close()
    assert out.getvalue() == "\r\x1b[K2/3 done · web: Creating\r\x1b[K"


def test_a_description_says_where_and_why() -> None:
    assert describe(web(state="Pending", reason="NoHostFits", message="no\nroom")) == (
        "Pending: NoHostFits no room"
    )


def test_the_meter_knows_what_is_done() -> None:
    meter = Meter(io.StringIO(), 100 << 20)
    step = ImportProgress(step="uploading", received_bytes=25 << 20)
    assert meter.describe(step) == "uploading [#####...............] 25% 25M/100M"
    assert meter.describe(ImportProgress(step="replicating", hosts_done=1, hosts_wanted=3)) == (
        "replicating 1/3 hosts"
    )
    assert Meter(io.StringIO(), 0).describe(step) == "uploading 25M"


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([b"plain\r\n\ttext"], "plain\r\n\ttext"),
        ([b"\x1b[31mred\x1b[0m"], "red"),
        ([b"\x1b]0;ti", b"tle\x07after"], "after"),
        ([b"\x1b]0;title\x1b", b"\\after"], "after"),
        ([b"\x1b", b"[2", b"Jx"], "x"),
        ([b"\x1bPq#0\x1b\\x"], "x"),
        ([b"\x1b(Bx\x08\x07\x7f"], "x"),
        (["é\x9b2Jx".encode()[:1], "é\x9b2Jx".encode()[1:]], "éx"),
    ],
)
def test_a_console_can_not_steer_the_terminal(chunks: list[bytes], text: str) -> None:
    harmless = EscapeFilter()
    assert "".join(harmless.feed(chunk) for chunk in chunks) == text


def test_one_line_is_one_line() -> None:
    assert one_line(" a\n\tb  c\x1b ") == "a b c"
