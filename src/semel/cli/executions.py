"""`semel executions`: what runs and ran, and what may be done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from semel.cli.location import existing_path, namespace_option, reading, store_option
from semel.cli.output import INSTANT, JSON, output_option, say, show_fields, show_json, show_rows
from semel.cli.parked import show_described, why_parked
from semel.cli.pins import versions_of_owner
from semel.cli.plain import stored
from semel.executions import ANY, find, read_all
from semel.history import render
from semel.journal.chunks import whole
from semel.journal.outcomes import outcome_in
from semel.kernel.entry import Record, RetryScheduled, Settled, Started, TurnEnded
from semel.kernel.values import encode
from semel.listing import STATUSES, Wanted, info_of, list_streams
from semel.store.base import FUNCTION, PARKED, PAUSED, Reader, Stream

_LIST_COLUMNS = ("id", "function", "name", "status", "started_ms", "ended_ms", "wake_ms")
_HISTORY_COLUMNS = ("event_id", "time_ms", "type", "id", "name", "attempt", "due_ms", "result", "error")

which_argument = click.argument("which", metavar="ID")
function_option = click.option("--function", help="The function: ID is then an execution's name (its key).")
reason_option = click.option("--reason", default="", help="Kept in the journal.")


@click.group()
def executions() -> None:
    """List, look at, stop, pause, resume and delete executions of durable functions."""


@executions.command("list")
@click.option("--function", help="Only of this function.")
@click.option(
    "--status",
    "statuses",
    type=click.Choice(STATUSES, case_sensitive=False),
    multiple=True,
    help="Only in this status, or in one of several.",
)
@click.option("--started-after", type=INSTANT, help="Only started at this time or later.")
@click.option("--started-before", type=INSTANT, help="Only started before this time.")
@click.option("--name-prefix", default="", help="Only those whose name begins with this.")
@click.option("--oldest-first", is_flag=True, help="In the order of their starts, instead of newest first.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Rows of a page.")
@click.option("--after", help="The next page: what the page before printed.")
@store_option
@namespace_option
@output_option
def list_command(
    *,
    function: str | None,
    statuses: tuple[str, ...],
    started_after: int | None,
    started_before: int | None,
    name_prefix: str,
    oldest_first: bool,
    limit: int,
    after: str | None,
    store: str,
    namespace: str,
    output: str,
) -> None:
    """List executions, newest first.

    A time is whole milliseconds since 1970, or a date or time such as 2026-03-01 or 2026-03-01T12:30Z.
    """
    wanted = Wanted(
        namespace=namespace,
        page_max=limit,
        function=function,
        status=statuses or None,
        started_after_ms=started_after,
        started_before_ms=started_before,
        name_prefix=name_prefix,
        after=after,
        limit=limit,
        oldest_first=oldest_first,
    )
    with reading(store) as reader:
        streams, following = list_streams(reader, wanted)
    versions = versions_of_owner(existing_path(store), streams)
    rows = [_fields(stream, versions) for stream in streams]
    if output == JSON:
        show_json({"items": rows, "next": following})
        return
    for row in rows:
        if row["waiting_for"]:
            what = "version" if row["is_pinned"] else "code of"
            row["status"] = f"{row['status']}, waits for {what} {row['waiting_for']}"
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
    if fields["waiting_for"] and not fields["is_pinned"]:
        say(
            f"it waits for the code of {fields['waiting_for']!r}, which the engine on the file has not imported: "
            f"run one that has"
        )
    elif fields["waiting_for"]:
        say(
            f"it is pinned and waits for version {fields['waiting_for']}: run an engine with that code on the file, "
            f"or let it go on under the code that is there, checked by its replay: semel executions unpin {stream.uid}"
        )


@executions.command()
@which_argument
@function_option
@click.option("--limit", type=click.IntRange(1), help="Events of a page; all of them, if left out.")
@click.option("--after", type=click.IntRange(1), help="The next page: the last event id of the page before.")
@click.option("--reverse", is_flag=True, help="The last event first.")
@store_option
@namespace_option
@output_option
def history(
    which: str,
    *,
    function: str | None,
    limit: int | None,
    after: int | None,
    reverse: bool,
    store: str,
    namespace: str,
    output: str,
) -> None:
    """Show the events of one execution, in AWS's terms."""
    with reading(store) as reader:
        stream = find(reader, which, namespace=namespace, function=function)
        records = [_without_classes(record) for record in read_all(reader, stream)]
    events = render(records, after=after, limit=limit, reverse=reverse)
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
@click.option("--children", is_flag=True, help="With it, stop whatever it has invoked and is still running.")
@store_option
@namespace_option
@output_option
def stop(
    which: str, *, function: str | None, reason: str, children: bool, store: str, namespace: str, output: str
) -> None:
    """End an execution as STOPPED. One that has an outcome keeps it.

    A step that is running goes on until it ends; its result is dropped. What it has invoked goes on.
    """
    info = _change("stop", which, function=function, store=store, namespace=namespace, reason=reason, children=children)
    if info["status"] != "STOPPED":
        say(f"it had ended before: {info['status']}; its outcome stands")
    show_described(info, output=output)


@executions.command()
@which_argument
@function_option
@reason_option
@click.option("--timeout-runs-on", is_flag=True, help="The time until the resume counts towards its timeout.")
@store_option
@namespace_option
@output_option
def pause(
    which: str,
    *,
    function: str | None,
    reason: str,
    timeout_runs_on: bool,
    store: str,
    namespace: str,
    output: str,
) -> None:
    """Let no step of an execution begin any more until it is resumed.

    It is PAUSING until the steps that run have ended, then PAUSED. A paused one stays as it is.
    """
    info = _change(
        "pause",
        which,
        function=function,
        store=store,
        namespace=namespace,
        reason=reason,
        timeout_paused=not timeout_runs_on,
    )
    show_fields(info, output=output)


@executions.command()
@which_argument
@function_option
@reason_option
@store_option
@namespace_option
@output_option
def resume(which: str, *, function: str | None, reason: str, store: str, namespace: str, output: str) -> None:
    """Put a paused execution back in service, or a parked one or parked actor by its id, once its cause is mended."""
    info = _change("resume", which, function=function, store=store, namespace=namespace, reason=reason)
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
    info = _change("unpin", which, function=function, store=store, namespace=namespace, reason=reason)
    show_fields(info, output=output)


@executions.command()
@which_argument
@function_option
@store_option
@namespace_option
@output_option
def delete(which: str, *, function: str | None, store: str, namespace: str, output: str) -> None:
    """Remove an execution that has ended, and its history; show what there was.

    The same request still gets its outcome until its key expires. `forget-key` frees the key.
    """
    show_fields(_change("delete", which, function=function, store=store, namespace=namespace), output=output)


@executions.command("forget-key")
@click.argument("name")
@click.option("--function", required=True, help="The function that the name is a key of.")
@store_option
@namespace_option
def forget_key(name: str, *, function: str, store: str, namespace: str) -> None:
    """Free the name of an execution that has ended: the next request under it is a new one."""
    request = {"name": name, "function": function}
    _ask(store, "forget_key", request, namespace=namespace)
    say(f"the key {name!r} of {function!r} is free")


def _change(
    method: str, which: str, *, function: str | None, store: str, namespace: str, **options: Any
) -> dict[str, Any]:
    """Have it done by the owner of the file, or by an engine of our own; describe what is there, or was deleted."""
    with reading(store) as reader:
        stream = find(reader, which, namespace=namespace, function=function, type=_type(method))
        before = _described(reader, stream, store)
    _ask(store, method, {"id": stream.uid, **options}, namespace=namespace)
    if method == "delete":
        return before
    with reading(store) as reader:
        stream = find(reader, stream.uid, namespace=namespace, function=None, type=_type(method))
        return _described(reader, stream, store)


def _type(method: str) -> str:
    """What a change may be made to: only an execution can be stopped."""
    return ANY if method == "resume" else FUNCTION


def _ask(store: str, method: str, request: dict[str, Any], *, namespace: str) -> None:
    from semel.runtime.owner_socket import call

    if call(existing_path(store), method, request, timeout_ms=60_000) is None:
        asyncio.run(_do_here(store, method, request, namespace=namespace))


async def _do_here(store: str, method: str, request: dict[str, Any], *, namespace: str) -> None:
    from semel.engine import Engine
    from semel.served import serve

    async with Engine(store, namespace=namespace) as engine:
        await serve(engine, method, request)


def _fields(stream: Stream, versions: Sequence[str]) -> dict[str, Any]:
    fields = msgspec.structs.asdict(info_of(stream, versions))
    for name in ("reason", "report", "result", "error_type", "error_message"):
        del fields[name]
    return fields


def _described(reader: Reader, stream: Stream, store: str) -> dict[str, Any]:
    """An execution with its outcome as plain values: the classes of its program are not here."""
    fields = _fields(stream, versions_of_owner(existing_path(store), [stream]))
    if stream.status in (PARKED, PAUSED):
        return fields | why_parked(reader, stream)
    settled = outcome_in(reader, stream)
    if settled is None:
        return fields
    if settled.error is not None:
        return fields | {"error_type": settled.error.type, "error_message": settled.error.message}
    return fields | {"result": stored(settled.result and whole(reader, stream.number, settled.result))}


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
        name: msgspec.structs.replace(payload, data=encode(stored(payload)), digest=b"")
        for name, payload in changes.items()
    }
    return msgspec.structs.replace(record, entry=msgspec.structs.replace(record.entry, **replaced))
