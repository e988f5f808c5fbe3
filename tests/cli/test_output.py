"""What a command prints: readable, complete, and harmless to the terminal that shows it."""

import datetime as dt
import enum
import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.cli.output import json_text, plain_text, show_fields, show_rows
from semel.cli.plain import plain, stored
from semel.kernel.entry import Payload
from semel.kernel.values import encode, register_annotations

HOSTILE = "\x1b[2J\x1b]0;title\x07 \u202eright\u2066 \x9b31m \x7f \u2028 line\nbreak \ud800"


class OutputColour(enum.Enum):
    RED = "red"


@dataclass
class OutputLine:
    name: str
    amount: Decimal


class OutputOrder(msgspec.Struct):
    lines: list[OutputLine]
    colour: OutputColour


class OutputModel(pydantic.BaseModel):
    at: dt.datetime


class OutputPoint(NamedTuple):
    x: int
    y: int


def sample(order: OutputOrder, model: OutputModel, point: OutputPoint) -> None: ...


register_annotations(sample)
VALUES = [
    (None, None),
    (True, True),
    (2**70, 2**70),
    (1.5, 1.5),
    (math.inf, "inf"),
    ("ü", "ü"),
    (b"\x00\xff", "AP8="),
    (Decimal("19.90"), "19.90"),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ((1, (2,)), [1, [2]]),
    ({1}, [1]),
    ({1: "a", "b": (2,)}, {"1": "a", "b": [2]}),
    (
        OutputOrder([OutputLine("a", Decimal(1))], OutputColour.RED),
        {"lines": [{"name": "a", "amount": "1"}], "colour": "red"},
    ),
    (OutputModel(at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC)), {"at": "2026-01-02T00:00:00Z"}),
    (OutputPoint(1, 2), {"x": 1, "y": 2}),
]


def test_a_number_of_more_digits_than_python_spells_is_shown():
    assert plain([10**5000]) == [hex(10**5000)]
    assert hex(-(10**5000)) in json_text(plain(-(10**5000)))


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=str)
def test_a_value_has_a_form_in_json(value, expected):
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=str)
def test_a_stored_value_is_shown_without_its_classes(value, expected):
    expected = (
        {"lines": [{"name": "a", "amount": "1"}], "colour": "RED"} if isinstance(value, OutputOrder) else expected
    )
    found = stored(Payload(encode(value)))
    assert found in (expected, [expected])


def test_stored_bytes_that_cannot_be_read_are_described():
    assert stored(Payload(b"\xc1garbage")) == "(8 bytes that cannot be read)"
    assert stored(Payload(b"x" * 5, encoding="aws/json")) == "(5 bytes, encoding 'aws/json')"
    assert stored(None) is None


@given(st.binary(max_size=60))
def test_showing_stored_bytes_never_raises(data):
    json_text(stored(Payload(data)))


def test_a_value_that_contains_itself_ends():
    value = []
    value.append(value)
    json_text(plain(value))


@given(st.text())
def test_text_for_a_terminal_has_one_line_that_prints(text):
    assert plain_text(text).isprintable()
    plain_text(text).encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_json_for_a_terminal_prints_and_reads_back(value):
    text = json_text(value)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value


@pytest.mark.parametrize("output", ["table", "json"])
def test_control_characters_of_a_user_do_not_reach_the_terminal(capsys, output):
    show_rows([{"name": HOSTILE}], columns=("name",), output=output)
    show_fields({"name": HOSTILE, "result": {"a": HOSTILE}}, output=output)
    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_a_table_shows_times_in_utc_and_nothing_as_a_dash(capsys):
    show_rows(
        [{"id": "a", "started_ms": 1_000, "result": None}], columns=("id", "started_ms", "result"), output="table"
    )
    assert capsys.readouterr().out.splitlines() == [
        "ID  STARTED                   RESULT",
        "a   1970-01-01 00:00:01.000Z  -",
    ]
