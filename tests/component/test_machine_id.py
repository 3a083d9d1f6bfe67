"""A host's machine id is made once: with another one no controller lets it in."""

import pytest

from veagent.facts import machine_id
from veapi.errors import Unavailable


def test_it_is_found_again_and_no_two_machines_have_the_same(tmp_path):
    found = machine_id(tmp_path / "state")
    assert machine_id(tmp_path / "state") == found
    assert machine_id(tmp_path / "other") != found


def test_what_a_kill_left_half_written_is_no_id(tmp_path):
    (tmp_path / "machine-id").write_text("")
    (tmp_path / "machine-id.tmp").write_text("abc")
    found = machine_id(tmp_path)
    assert len(found) == 32
    assert machine_id(tmp_path) == found


def test_one_that_can_not_be_kept_is_not_told(tmp_path):
    (tmp_path / "state").write_text("no folder")
    with pytest.raises(Unavailable, match="machine-id"):
        machine_id(tmp_path / "state")
