"""`semel check`: whether the code at hand may go on with what a store holds."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import Counter
from typing import Final

import click
from msgspec import structs

from semel.cli.code import import_user_module
from semel.cli.location import existing_path, namespace_option
from semel.cli.output import JSON, output_option, say, show_json, show_rows

DIVERGES_EXIT: Final = 1
UNKNOWN_EXIT: Final = 5
_COLUMNS: Final = ("verdict", "function", "name", "id", "operation", "number", "source", "reason")


@click.command()
@click.argument("modules", metavar="MODULE...", nargs=-1, required=True)
@click.option(
    "--against",
    "store",
    required=True,
    envvar="SEMEL_STORE",
    show_envvar=True,
    metavar="STORE",
    help="The journal: sqlite:///relative.db or sqlite:////absolute.db.",
)
@click.option("--problems", is_flag=True, help="Show only what is not safe.")
@click.option("--seconds", type=click.FloatRange(0.1), default=10, show_default=True, help="How long one may take.")
@namespace_option
@output_option
@click.pass_context
def check(
    ctx: click.Context,
    *,
    modules: tuple[str, ...],
    store: str,
    problems: bool,
    seconds: float,
    namespace: str,
    output: str,
) -> None:
    """Replay every open execution on the code of MODULE, with nothing begun and nothing recorded.

    "safe": it takes all that is recorded as it is recorded. "diverges": a worker with this code would
    park it; the first operation that differs is shown with its file and line. "unknown": its function
    is in none of the modules, its arguments cannot be read, or the code raises or blocks. "pinned": it
    waits for the version it began with, and this code will not run it. The store is only read, also
    beside a running engine.

    Ends with 0 if all are safe or pinned, 1 if one diverges, 5 if none does and one is unknown.
    """
    from semel.deploy import check as check_store

    existing_path(store)
    # What the code prints and logs while it is replayed is talk, and the data on stdout is ours.
    with contextlib.redirect_stdout(sys.stderr):
        for module in modules:
            import_user_module(module)
        logging.getLogger("semel").setLevel(logging.CRITICAL)
        found = check_store(store, namespace=namespace, seconds_max=seconds)
    counts = Counter(one.verdict.value for one in found)
    rows = [structs.asdict(one) for one in found if not problems or one.verdict.value not in ("safe", "pinned")]
    if output == JSON:
        show_json({"counts": counts, "items": rows})
    else:
        show_rows(
            [{name: value or None for name, value in row.items()} for row in rows], columns=_COLUMNS, output=output
        )
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "none"
    say(f"open executions: {len(found)}: {said}")
    if counts["diverges"]:
        say("put `if ctx.patched(…)` around each change, pin the function, or let the runs end on the old code")
    ctx.exit(DIVERGES_EXIT if counts["diverges"] else UNKNOWN_EXIT if counts["unknown"] else 0)
