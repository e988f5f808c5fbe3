"""How commands show why something is parked: a sentence, and under it the report of a divergence."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any, Final

import click
import msgspec

from semel.cli.output import JSON, plain_text, show_fields, show_json
from semel.executions import control_of
from semel.kernel.report import DivergenceReport
from semel.store.base import Reader, Stream

WIDTH_MAX: Final = 140


def why_parked(reader: Reader, stream: Stream) -> dict[str, Any]:
    """The fields that a parked stream has beside the others."""
    parked = control_of(reader, stream)
    return {"reason": parked.reason} | ({} if parked.report is None else {"report": parked.report})


def show_described(fields: Mapping[str, Any], *, output: str) -> None:
    """Print one thing as `show_fields` does, and the report of a divergence as what it is."""
    report = fields.get("report")
    if not isinstance(report, DivergenceReport):
        show_fields(fields, output=output)
        return
    if output == JSON:
        show_json({**fields, "report": as_data(report, stream=fields["id"])})
        return
    show_fields({name: value for name, value in fields.items() if name != "report"}, output=output)
    click.echo()
    width = min(shutil.get_terminal_size().columns, WIDTH_MAX)
    for line in report.text(width=width, stream=fields["id"]).splitlines():
        click.echo(plain_text(line))


def as_data(report: DivergenceReport, *, stream: str) -> dict[str, Any]:
    """A report in plain values under the names of its fields, with the advice spelled out."""
    found: dict[str, Any] = msgspec.structs.asdict(report)
    rows = []
    for row in report.rows:
        sides = {
            name: None if side is None else msgspec.structs.asdict(side)
            for name, side in (("recorded", row.recorded), ("asked", row.asked))
        }
        rows.append(msgspec.structs.asdict(row) | sides)
    return found | {"rows": rows, "advice": list(report.advice(stream=stream))}
