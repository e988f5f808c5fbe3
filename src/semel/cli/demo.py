"""`semel demo`: the comparison, from a checkout."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click

from semel.errors import NotFoundError

MODULE = "examples.comparison.aws_durable_lambda.demo"


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.option("-h", "--help", "wants_help", is_flag=True, help="Show this message, then the options of the demo.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def demo(ctx: click.Context, wants_help: bool, arguments: tuple[str, ...]) -> None:
    """Run the comparison: both models, killed at every step boundary, measured.

    It needs a checkout of semel, because the examples are not installed. ARGUMENTS go to the demo:
    `--orders FILE` processes a file of orders under random kills.
    """
    if wants_help:
        click.echo(ctx.get_help())
        if checkout() is None:
            return
        arguments = (*arguments, "--help")
    ctx.exit(_run(list(arguments)))


def checkout() -> Path | None:
    """The checkout that this process works in: that of the current directory, or of the package."""
    for folder in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (folder / "examples" / "comparison" / "aws_durable_lambda" / "demo.py").is_file():
            return folder
    return None


def _run(arguments: list[str]) -> int:
    folder = checkout()
    if folder is None:
        raise NotFoundError(
            f"semel demo: found no examples in {str(Path.cwd())!r}, expected a checkout of semel; "
            f"change into one and run `make demo`"
        )
    sys.path.insert(0, str(folder))
    code: int = import_module(MODULE).main(arguments)
    return code
