import click

from veapi.daemon import EndedEarly
from veapi.errors import Conflict
from vecontroller.leader import NotLeader
from vecontroller.main import EXIT_DEPOSED, EXIT_FAULT, _ending


def code(error):
    ending = _ending(error)
    assert isinstance(ending, click.exceptions.Exit)
    return ending.exit_code


def test_a_lost_leadership_has_an_exit_code_of_its_own():
    assert code(ExceptionGroup("", [ExceptionGroup("", [NotLeader("x")])])) == EXIT_DEPOSED
    assert code(ExceptionGroup("", [EndedEarly("leadership"), Conflict("x")])) == EXIT_DEPOSED


def test_an_expected_error_is_shown_as_it_is():
    error = Conflict("taken", hint="free it")
    assert _ending(ExceptionGroup("", [error])) is error


def test_a_fault_of_ours_is_an_exit_code_and_a_log_line():
    assert code(ExceptionGroup("", [EndedEarly("mirror")])) == EXIT_FAULT
    assert code(RuntimeError("x")) == EXIT_FAULT
