"""`semel executions`: what runs and ran, and what may be done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from semel.cli.location import existing_path, namespace_option, reading, store_option
from semel.cli.output import JSON, output_option, say, show_fields, show_json, show_rows
from semel.cli.parked import show_described, why_parked
from semel.cli.pins import versions_of_owner
from semel.cli.plain import stored
from semel.executions import ANY, ExecutionInfo, find, read_all, waiting_for
from semel.history import render
from semel.journal.outcomes import outcome_in
from semel.kernel.entry import Record, RetryScheduled, Settled, Started, TurnEnded
from semel.kernel.values import encode
from semel.store.base import FUNCTION, PARKED, Filter, Reader, Stream

STATUSES = ("RUNNING", "PARKED", "SUCCEEDED", "FAILED", "STOPPED", "TIMED_OUT")
_LIST_COLUMNS = ("id", "function", "name", "status", "started_ms", "ended_ms", "wake_ms")
_HISTORY_COLUMNS = ("event_id", "time_ms", "type", "id", "name", "attempt", "due_ms", "result", "error")

which_argument = click.argument("which", metavar="ID")
function_option = click.option("--function", help="The function: ID is then an execution's name (its key).")
reason_option = click.option("--reason", default="", help="Kept in the journal.")


@click.group()
def executions() -> None:
    """List, look at, stop and resume executions of durable functions."""


@executions.command("list")
@click.option("--function", help="Only of this function.")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only in this status.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Rows of a page.")
@click.option("--after", type=click.IntRange(1), help="The next page: what the page before printed.")
@store_option
@namespace_option
@output_option
def list_command(
    *, function: str | None, status: str | None, limit: int, after: int | None, store: str, namespace: str, output: str
) -> None:
    """List executions, newest first."""
    with reading(store) as reader:
        streams = reader.list(Filter(FUNCTION, namespace, function, status, after, limit))
    following = streams[-1].number if len(streams) == limit else None
    versions = versions_of_owner(existing_path(store), streams)
    rows = [_fields(stream, versions) for stream in streams]
    if output == JSON:
        show_json({"items": rows, "next": following})
        return
    for row in rows:
        if row["waiting_for"]:
            row["status"] = f"{row['status']}, waits for version {row['waiting_for']}"
    show_rows(rows, columns=_LIST_COLUMNS, output=output)
    if following is not None:
        say(f"there may be more: --after {following}")


@executions.command()
@which_argument
@function_option
@store_option
@namespace_option
@output_option
def get(which: str, *, function: str | None, store: str, namespace: str, output: str) -> None:
    """Show one execution with its outcome, or why it is parked."""
    with reading(store) as reader:
        stream = find(reader, which, namespace=namespace, function=function)
        fields = _described(reader, stream, store)
    show_described(fields, output=output)
    if fields["waiting_for"]:
        say(
            f"it is pinned and waits for version {fields['waiting_for']}: run an engine with that code on the file, "
            f"or let it go on under the code that is there, checked by its replay: semel executions unpin {stream.uid}"
        )


@executions.command()
@which_argument
@function_option
@store_option
@namespace_option
@output_option
def history(which: str, *, function: str | None, store: str, namespace: str, output: str) -> None:
    """Show the events of one execution, in AWS's terms."""
    with reading(store) as reader:
        stream = find(reader, which, namespace=namespace, function=function)
        events = render([_without_classes(record) for record in read_all(reader, stream)])
    rows = [msgspec.structs.asdict(event) for event in events]
    if output != JSON:
        for row in rows:
            row["error"] = ": ".join(filter(None, (row["error_type"], row["error_message"]))) or None
            row["attempt"] = row["attempt"] or None
    show_rows(rows, columns=_HISTORY_COLUMNS, output=output)


@executions.command()
@which_argument
@function_option
@reason_option
@store_option
@namespace_option
@output_option
def stop(which: str, *, function: str | None, reason: str, store: str, namespace: str, output: str) -> None:
    """End an execution as STOPPED. One that has an outcome keeps it.

    A step that is running goes on until it ends; its result is dropped.
    """
    info = _change("stop", which, function=function, reason=reason, store=store, namespace=namespace)
    if info["status"] != "STOPPED":
        say(f"it had ended before: {info['status']}; its outcome stands")
    show_described(info, output=output)


@executions.command()
@which_argument
@function_option
@reason_option
@store_option
@namespace_option
@output_option
def resume(which: str, *, function: str | None, reason: str, store: str, namespace: str, output: str) -> None:
    """Put a parked execution, or actor by its id, back in service, once its cause is mended.

    Others stay as they are.
    """
    info = _change("resume", which, function=function, reason=reason, store=store, namespace=namespace)
    show_described(info, output=output)


@executions.command()
@which_argument
@function_option
@reason_option
@store_option
@namespace_option
@output_option
def unpin(which: str, *, function: str | None, reason: str, store: str, namespace: str, output: str) -> None:
    """Let a pinned execution go on under whatever version of its function there is. Its replay is checked.

    Look first whether it would diverge: semel check. One that is not pinned stays as it is.
    """
    info = _change("unpin", which, function=function, reason=reason, store=store, namespace=namespace)
    show_fields(info, output=output)


def _change(
    method: str, which: str, *, function: str | None, reason: str, store: str, namespace: str
) -> dict[str, Any]:
    """Have it done by the owner of the file, or by an engine of our own; then describe what is there."""
    from semel.runtime.owner_socket import call

    path = existing_path(store)
    with reading(store) as reader:
        stream = find(reader, which, namespace=namespace, function=function, type=_type(method))
    request = {"id": stream.uid, "reason": reason}
    if call(path, method, request, timeout_ms=60_000) is None:
        asyncio.run(_change_here(method, stream.uid, reason=reason, store=store, namespace=namespace))
    with reading(store) as reader:
        stream = find(reader, stream.uid, namespace=namespace, function=None, type=_type(method))
        return _described(reader, stream, store)


def _type(method: str) -> str:
    """What a change may be made to: only an execution can be stopped."""
    return ANY if method == "resume" else FUNCTION


async def _change_here(method: str, uid: str, *, reason: str, store: str, namespace: str) -> None:
    from semel.engine import Engine

    async with Engine(store, namespace=namespace) as engine:
        await getattr(engine.executions, method)(uid, reason=reason)


def _fields(stream: Stream, versions: Sequence[str]) -> dict[str, Any]:
    info = ExecutionInfo(
        stream.uid,
        stream.name,
        stream.key,
        stream.status,
        stream.created_ms,
        stream.ended_ms,
        stream.wake_ms,
        stream.holder,
        stream.code_version,
        is_pinned=stream.is_pinned,
        waiting_for=waiting_for(stream, versions),
    )
    fields = msgspec.structs.asdict(info)
    for name in ("reason", "report", "result", "error_type", "error_message"):
        del fields[name]
    return fields


def _described(reader: Reader, stream: Stream, store: str) -> dict[str, Any]:
    """An execution with its outcome as plain values: the classes of its program are not here."""
    fields = _fields(stream, versions_of_owner(existing_path(store), [stream]))
    if stream.status == PARKED:
        return fields | why_parked(reader, stream)
    settled = outcome_in(reader, stream)
    if settled is None:
        return fields
    if settled.error is not None:
        return fields | {"error_type": settled.error.type, "error_message": settled.error.message}
    return fields | {"result": stored(settled.result)}


def _without_classes(record: Record) -> Record:
    """The record with its values as plain ones, so that it can be rendered by who has not imported their classes."""
    match record.entry:
        case Started(payload=payload) | RetryScheduled(payload=payload) if payload is not None:
            changes = {"payload": payload}
        case Settled(result=payload) if payload is not None:
            changes = {"result": payload}
        case TurnEnded(state=payload) if payload is not None:
            changes = {"state": payload}
        case _:
            return record
    replaced = {
        name: msgspec.structs.replace(payload, data=encode(stored(payload))) for name, payload in changes.items()
    }
    return msgspec.structs.replace(record, entry=msgspec.structs.replace(record.entry, **replaced))
