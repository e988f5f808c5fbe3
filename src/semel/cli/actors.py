"""`semel actors`: which there are, their state and their mailboxes."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from semel.cli.location import namespace_option, reading, store_option
from semel.cli.output import JSON, output_option, say, show_json, show_rows
from semel.cli.parked import show_described, why_parked
from semel.cli.plain import stored
from semel.errors import NotFoundError
from semel.executions import ActorInfo
from semel.journal.chunks import whole
from semel.journal.holding import read
from semel.kernel.mailbox import Mailbox
from semel.store.base import ACTOR, PARKED, Address, Filter, Reader, Stream

_LIST_COLUMNS = ("id", "type", "key", "status", "created_ms", "wake_ms", "holder")


@click.group()
def actors() -> None:
    """List and look at actors."""


@actors.command("list")
@click.option("--type", "actor_type", help="Only of this type.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Rows of a page.")
@click.option("--after", type=click.IntRange(1), help="The next page: what the page before printed.")
@store_option
@namespace_option
@output_option
def list_command(
    *, actor_type: str | None, limit: int, after: int | None, store: str, namespace: str, output: str
) -> None:
    """List actors, newest first."""
    with reading(store) as reader:
        streams = reader.list(Filter(ACTOR, namespace, actor_type, None, after, limit))
    following = streams[-1].number if len(streams) == limit else None
    rows = [_fields(stream) for stream in streams]
    if output == JSON:
        show_json({"items": rows, "next": following})
        return
    show_rows(rows, columns=_LIST_COLUMNS, output=output)
    if following is not None:
        say(f"there may be more: --after {following}")


@actors.command()
@click.argument("which", metavar="ID|TYPE")
@click.argument("key", required=False)
@store_option
@namespace_option
@output_option
def get(which: str, key: str | None, store: str, namespace: str, output: str) -> None:
    """Show one actor, by its id or by its type and key, with its recorded state and open messages."""
    with reading(store) as reader:
        stream = _find(reader, which, key, namespace=namespace)
        mailbox = Mailbox.of(read(reader, stream))
        state = mailbox.snapshot and whole(reader, stream.number, mailbox.snapshot)
        reason = why_parked(reader, stream) if stream.status == PARKED else {}
    fields = _fields(stream) | {"open_messages": len(mailbox), "state": stored(state)} | reason
    show_described(fields, output=output)


def _find(reader: Reader, which: str, key: str | None, *, namespace: str) -> Stream:
    if key is None:
        stream = reader.stream_by_uid(which)
    else:
        stream = reader.stream_by_address(Address(namespace, ACTOR, which, key))
    if stream is None or stream.type != ACTOR:
        named = repr(which) if key is None else f"{which!r} with key {key!r}"
        raise NotFoundError(
            f"actor {named}: there is none in namespace {namespace!r}, expected an id, or a type and a key; "
            f"`semel actors list` shows both"
        )
    return stream


def _fields(stream: Stream) -> dict[str, Any]:
    info = ActorInfo(
        stream.uid,
        stream.name,
        stream.key,
        stream.status,
        stream.created_ms,
        stream.wake_ms,
        stream.holder,
        stream.turn,
    )
    fields = msgspec.structs.asdict(info)
    for name in ("open_messages", "state"):
        del fields[name]
    return fields
