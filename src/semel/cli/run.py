"""`semel run`: start a durable function, or join it, and print its result."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from semel.cli.code import arguments_from_json, find_function, parse_json
from semel.cli.location import path_of, store_option
from semel.cli.output import say, show_json
from semel.cli.plain import plain, stored
from semel.errors import SerializationError
from semel.function import FunctionSpec
from semel.kernel import ids, values
from semel.kernel.entry import EXECUTION_MS_MAX, Payload


@click.command()
@click.argument("target", metavar="MODULE:FUNCTION")
@click.argument("document", metavar="[JSON]", required=False)
@click.option("--key", help="Idempotency key, and the execution's name. Random if left out.")
@click.option(
    "--timeout-ms", type=click.IntRange(1, EXECUTION_MS_MAX), help="If it is new: after this time it ends TIMED_OUT."
)
@store_option
def run(target: str, document: str | None, key: str | None, timeout_ms: int | None, store: str) -> None:
    """Run a durable function to its outcome and print the result as JSON.

    JSON is the function's argument; an array, or an object by name, where it takes several; `-` reads
    it from standard input. The same key with the same JSON joins what runs or has run; with other
    JSON it is refused. An engine that owns the file does the work, else this command does.
    """
    if key is not None:
        ids.check_key(key)
    path = path_of(store)
    spec = find_function(target)
    text: str | bytes | None = sys.stdin.buffer.read() if document == "-" else document
    data = None if text is None else parse_json(text)
    arguments = arguments_from_json(spec, data, given=text is not None)
    encoded = values.encode(arguments)
    if key is None:
        say("no --key: this execution cannot be joined by running the command again")
    show_json(_outcome(path, spec, arguments, encoded, key=key, timeout_ms=timeout_ms, store=store))


def _outcome(
    path: str,
    spec: FunctionSpec,
    arguments: tuple[Any, ...],
    encoded: bytes,
    *,
    key: str | None,
    timeout_ms: int | None,
    store: str,
) -> Any:
    """The result as plain JSON, from the owner of the file or from an engine of our own."""
    from semel.runtime.owner_socket import call

    request = {"function": spec.name, "arguments": encoded, "key": key, "timeout_ms": timeout_ms}
    answer = call(path, "run", request, timeout_ms=None)
    if answer is None:
        return plain(asyncio.run(_run_here(spec, arguments, key=key, timeout_ms=timeout_ms, store=store)))
    try:
        return plain(values.decode(answer.ok))
    except SerializationError:
        # A class that this process has not imported.
        return stored(Payload(answer.ok))


async def _run_here(
    spec: FunctionSpec, arguments: tuple[Any, ...], *, key: str | None, timeout_ms: int | None, store: str
) -> Any:
    from semel.engine import Engine

    async with Engine(store) as engine:
        execution = await engine.start_spec(spec, arguments, key=key, timeout_ms=timeout_ms)
        return await execution.result()
