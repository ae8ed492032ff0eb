"""completion: what a shell reads to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell: add `eval "$(steerboard completion bash)"` to its start-up file."""
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    root = context.find_root().command
    click.echo(kind(root, {}, "steerboard", "_STEERBOARD_COMPLETE").source())
