"""`semel`: the commands, one noun a file, each imported when it is called.

Data goes to stdout, talk to stderr. What a command ends with is EXIT_CODES' to say, and nobody else's.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from semel.errors import (
    ActorError,
    AlreadyStartedError,
    CallbackClosedError,
    ConflictError,
    ExecutionError,
    IdempotencyConflictError,
    IllegalTransitionError,
    InProgressError,
    NotFoundError,
    RequestError,
    SemelError,
    StoreFullError,
    UnavailableError,
    UnknownHandlerError,
    WrongStatusError,
)

INTERRUPTED: Final = 130
EXIT_CODES: Final[tuple[tuple[type[SemelError], int], ...]] = (
    (NotFoundError, 3),
    (UnknownHandlerError, 3),
    (IdempotencyConflictError, 4),
    (AlreadyStartedError, 4),
    (InProgressError, 4),
    (WrongStatusError, 4),
    (CallbackClosedError, 4),
    (IllegalTransitionError, 4),
    (ConflictError, 4),
    (RequestError, 2),
    (StoreFullError, 6),
    (UnavailableError, 6),
    (ExecutionError, 7),
    (ActorError, 7),
    (SemelError, 1),
)
COMMANDS: Final = ("actors", "callbacks", "check", "demo", "doctor", "executions", "run")


def exit_code(error: SemelError) -> int:
    """What a command that failed with this error ends with."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


class Commands(click.Group):
    """The root. A command's module is imported when the command is looked at."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"semel.cli.{cmd_name}"), cmd_name)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        from semel.cli.output import say

        try:
            return super().invoke(ctx)
        except SemelError as error:
            for line in f"error: {error}".splitlines():
                say(line)
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            say("interrupted: what was recorded stays; run the same command again to go on")
            ctx.exit(INTERRUPTED)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="semel")
def main() -> None:
    """Functions and actors that survive crashes, restarts and duplicate requests.

    Commands read the SQLite file directly, also beside a running engine; what they write goes
    through the engine that owns the file, or through one of their own while they run.

    Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 conflict, 5 undecided, 6 unavailable,
    7 execution failed, 130 interrupted.
    """
