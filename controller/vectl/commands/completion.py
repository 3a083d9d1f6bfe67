"""vectl completion."""

import click
from click.shell_completion import get_completion_class

from vectl import options

SHELLS = ("bash", "zsh", "fish")


@options.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete vectl's commands, options and names.

    bash: source <(vectl completion bash)

    zsh: source <(vectl completion zsh)

    fish: vectl completion fish | source
    """
    found = get_completion_class(shell)
    assert found is not None
    made = found(ctx.find_root().command, {}, "vectl", "_VECTL_COMPLETE")
    click.echo(made.source_template % made.source_vars())
