"""How commands speak: data to stdout as a table or as JSON, talk to stderr.

What a user or a journal wrote is shown and never obeyed: characters that a terminal acts upon,
or that reorder text, are spelled out.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

TABLE: Final = "table"
JSON: Final = "json"

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice([TABLE, JSON]),
    default=TABLE,
    show_default=True,
    help="Form of the data on stdout.",
)


def plain_text(text: object) -> str:
    """One line of text in which everything that does not print is spelled out."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )


def say(text: str) -> None:
    """Talk to the person: stderr, one line."""
    click.echo(plain_text(text), err=True)


def json_text(value: object) -> str:
    """Indented JSON of plain values, readable in any language and harmless to a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=str)
    return "".join(
        character if character.isprintable() or character == "\n" else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


def show_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(json_text(value))


def show_rows(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str], output: str) -> None:
    """Print rows: JSON has all of their fields, a table these columns."""
    if output == JSON:
        show_json(list(rows))
        return
    cells = [[_heading(column) for column in columns]]
    cells += [[_cell(column, row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show_fields(fields: Mapping[str, Any], *, output: str) -> None:
    """Print one thing: JSON as it is, a table as a line for each field."""
    if output == JSON:
        show_json(fields)
        return
    width = max((len(_heading(name)) for name in fields), default=0)
    for name, value in fields.items():
        click.echo(f"{_heading(name).ljust(width)}  {_cell(name, value)}".rstrip())


def _heading(column: str) -> str:
    return re.sub(r"_ms$", "", column).replace("_", " ").upper()


def _cell(column: str, value: Any) -> str:
    match value:
        case None:
            return "-"
        case int() if column.endswith("_ms"):
            return instant(value)
        case str():
            return plain_text(value)
        case dict() | list():
            return plain_text(json.dumps(value, ensure_ascii=False, default=str))
        case _:
            return plain_text(value)


def instant(at_ms: int) -> str:
    """A time as people read it, in UTC."""
    try:
        return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).isoformat(sep=" ", timespec="milliseconds")[:23] + "Z"
    except (OverflowError, ValueError, OSError):
        return str(at_ms)


class Instant(click.ParamType[int]):
    """A time as an option takes it: milliseconds since 1970, or ISO 8601; without a zone it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value)
        try:
            if text.lstrip("-").isdecimal() and "-" not in text[1:]:
                return int(text)
            found = dt.datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r}: expected milliseconds since 1970, or a time such as 2026-03-01T12:30Z", param, ctx)
        if found.tzinfo is None:
            found = found.replace(tzinfo=dt.UTC)
        return round(found.timestamp() * 1000)


INSTANT: Final = Instant()
