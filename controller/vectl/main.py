"""The program: its table of commands, and how every ending becomes two lines and an exit code."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from veapi.errors import VerackError
from vectl.lazy import Entry, LazyGroup
from vectl.options import where_options
from vectl.session import Ended, Interrupted, Session
from vectl.text import clean, complain

ENTRIES = {
    "create": Entry("vectl.commands.create:create", "Make VEs and wait until they run."),
    "list": Entry("vectl.commands.list:list_", "VEs, where they are and what they have."),
    "show": Entry("vectl.commands.show:show", "All about one VE, with its last events."),
    "start": Entry("vectl.commands.run:start", "Start VEs."),
    "stop": Entry("vectl.commands.run:stop", "Stop VEs."),
    "restart": Entry("vectl.commands.run:restart", "Stop VEs and start them again."),
    "freeze": Entry("vectl.commands.run:freeze", "Let VEs stand still."),
    "thaw": Entry("vectl.commands.run:thaw", "Let frozen VEs go on."),
    "set": Entry("vectl.commands.set:set_", "Change what a VE may have, while it runs."),
    "rename": Entry("vectl.commands.rename:rename", "Give a VE another name."),
    "clone": Entry("vectl.commands.clone:clone", "Make a VE of another one."),
    "rebuild": Entry("vectl.commands.rebuild:rebuild", "Give a VE a new root from an image."),
    "snapshot": Entry("vectl.commands.groups:snapshot", "Snapshots: take, list, delete."),
    "restore": Entry("vectl.commands.snapshot:restore", "Make a VE's root what it was."),
    "delete": Entry("vectl.commands.delete:delete", "Delete VEs."),
    "undelete": Entry("vectl.commands.undelete:undelete", "Bring a deleted VE back."),
    "purge": Entry("vectl.commands.undelete:purge", "Remove a deleted VE for good."),
    "exec": Entry("vectl.commands.exec:exec_", "Run a command in a VE."),
    "enter": Entry("vectl.commands.exec:enter", "A login shell in a VE."),
    "console": Entry("vectl.commands.console:console", "Be at a VE's console."),
    "push": Entry("vectl.commands.files:push", "Copy files into a VE."),
    "pull": Entry("vectl.commands.files:pull", "Copy files out of a VE."),
    "export": Entry("vectl.commands.archive:export", "A VE into a file."),
    "import": Entry("vectl.commands.archive:import_", "A VE out of a file."),
    "logs": Entry("vectl.commands.logs:logs", "A VE's console."),
    "wait": Entry("vectl.commands.wait:wait", "Wait until a VE is in a state, or gone."),
    "events": Entry("vectl.commands.events:events", "What happened to VEs."),
    "explain": Entry("vectl.commands.explain:explain", "Why a VE goes where it goes, or nowhere."),
    "history": Entry("vectl.commands.history:history", "Where a VE lived and why it moved."),
    "capacity": Entry(
        "vectl.commands.capacity:capacity", "How many more VEs fit, also after a loss."
    ),
    "simulate": Entry(
        "vectl.commands.simulate:simulate", "What goes where if hosts or VEs come or go."
    ),
    "plan": Entry("vectl.commands.plan:plan", "What apply would do, host by host."),
    "apply": Entry("vectl.commands.manifests:apply", "Make VEs as manifests say."),
    "diff": Entry("vectl.commands.manifests:diff", "What apply would change."),
    "group": Entry(
        "vectl.commands.groups:group", "So many VEs of one template: list, show, scale."
    ),
    "host": Entry("vectl.commands.groups:host", "Hosts: list, show."),
    "cluster": Entry("vectl.commands.groups:cluster", "The cluster: status, disarm, arm."),
    "image": Entry("vectl.commands.groups:image", "Images: import, list, show, delete."),
    "orphan": Entry("vectl.commands.groups:orphan", "What hosts have and nobody asks for."),
    "project": Entry("vectl.commands.groups:project", "Projects: create, list, set, show, delete."),
    "version": Entry("vectl.commands.version:version", "Versions of vectl and the controller."),
    "completion": Entry("vectl.commands.completion:completion", "Completion for a shell."),
}
ALIASES = {"ls": "list", "rm": "delete", "mv": "rename", "cp": "clone"}

root = LazyGroup(
    "vectl",
    entries=ENTRIES,
    aliases=ALIASES,
    help="Virtual environments on a rack of machines.\n\n"
    "Exit codes: 0 ok, 1 difference or condition false, 2 usage, 3 not found, 4 conflict,"
    " 5 no host fits, 6 timeout, 7 denied, 8 the remote side failed.",
    params=where_options(),
)
INTERRUPTED = 130


def main() -> None:
    """Entry point of the program."""
    _leave(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Runs one command line; its exit code. Only SystemExit passes."""
    try:
        result = root.main(args=list(argv), prog_name="vectl", obj=Session(), standalone_mode=False)
    except Exception as error:  # noqa: BLE001  # a traceback never reaches a user
        return _ending(error)
    return result if isinstance(result, int) else 0


def _ending(error: Exception) -> int:
    """Says what the exception means; the exit code."""
    match error:
        case Ended():
            code = error.code
        case Interrupted():
            code = _interrupted(error.stands)
        case click.Abort():
            code = _aborted(error)
        case VerackError():
            complain(error.message, error.hint)
            code = error.exit_code
        case click.ClickException():
            code = _usage(error)
        case OSError(errno=errno.ENOSPC):
            code = _unwritten(error)
        case _:
            code = _internal(error)
    return code


def _aborted(error: click.Abort) -> int:
    if isinstance(error.__cause__, KeyboardInterrupt):
        return _interrupted("")
    complain("aborted", "nothing was changed")
    return 1


def _usage(error: click.ClickException) -> int:
    path = "vectl"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        path = error.ctx.command_path
    message = error.format_message()
    complain(message[:1].lower() + message[1:].rstrip("."), f"see `{path} --help`")
    return 2


def _interrupted(stands: str) -> int:
    click.echo(f"\nInterrupted. {clean(stands)}".rstrip(), err=True)
    return INTERRUPTED


def _internal(error: Exception) -> int:
    if os.environ.get("VECTL_DEBUG"):
        import traceback  # noqa: PLC0415  # only on request

        traceback.print_exception(error)
    complain(
        f"vectl itself failed: {type(error).__name__}: {error}",
        "VECTL_DEBUG=1 shows where; please report it",
    )
    return VerackError.exit_code


def _unwritten(error: OSError) -> int:
    complain(f"can't write the output: {error.strerror}", "make room where it goes")
    return VerackError.exit_code


def _leave(code: int) -> NoReturn:
    """Ends at once: the interpreter would spend 20 ms on taking grpc apart."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            pass  # whoever read us has what it wanted
        except OSError as error:
            code = code or _unwritten(error)
    os._exit(code)


if __name__ == "__main__":
    main()
