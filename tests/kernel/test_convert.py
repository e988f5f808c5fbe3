import dataclasses
import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from semel.errors import ValidationError
from semel.kernel.values import convert


@dataclasses.dataclass
class Item:
    sku: str
    price: Decimal = Decimal(0)


class Cart(pydantic.BaseModel):
    owner: str
    items: list[Item] = []


class Bag(msgspec.Struct):
    carts: dict[str, Cart]
    at: dt.datetime | None = None


@dataclasses.dataclass
class Picky:
    n: int

    def __post_init__(self):
        raise {1: ValueError, 2: LookupError}[self.n]("not this one")


class Opaque:
    pass


@pytest.mark.parametrize(
    ("data", "hint", "expected"),
    [
        ({"sku": "a", "price": "1.50"}, Item, Item("a", Decimal("1.50"))),
        ([{"sku": "a"}], list[Item] | None, [Item("a")]),
        (None, Item | None, None),
        ({"owner": "x", "items": [{"sku": "a", "price": "2"}]}, Cart, Cart(owner="x", items=[Item("a", Decimal(2))])),
        ({"carts": {"a": {"owner": "x"}}}, Bag, Bag({"a": Cart(owner="x")})),
        ({"1": "2026-01-01T00:00:00Z"}, dict[int, dt.datetime], {1: dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}),
        ("00000000-0000-0000-0000-000000000000", UUID, UUID(int=0)),
        ([1, 1], set[int], {1}),
        ([1, "a"], tuple[int, str], (1, "a")),
        (1, float, 1.0),
        ({"any": ["thing"]}, Any, {"any": ["thing"]}),
        ({"any": ["thing"]}, object, {"any": ["thing"]}),
        (Item("a"), Item, Item("a")),
    ],
)
def test_plain_data_becomes_what_the_annotation_asks_for(data, hint, expected):
    converted = convert(data, hint)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("data", "hint", "words"),
    [
        ({"sku": 1}, Item, ["$.sku", "found 1", "expected `str`", "Item"]),
        ({}, Item, ["value at $", "found {}", "missing required field `sku`"]),
        ([{"sku": "a"}, {"sku": "b", "price": "x"}], list[Item], ["$[1].price", "found 'x'", "Invalid decimal"]),
        ("5", int, ["value at $", "found '5'", "expected `int`"]),
        (5, str, ["found 5", "expected `str`"]),
        (True, int, ["found True", "expected `int`"]),
        ({"owner": 1}, Cart, ["owner", "valid string", "found 1"]),
        ({"carts": {"a": {"owner": []}}}, Bag, ["$.carts[...]", "owner", "found []"]),
        ({"a": {"x": "y"}}, dict[str, dict[str, int]], ["$[...][...]", "found `str`", "expected `int`"]),
        ({"n": 1}, Picky, ["not this one", "Picky"]),
        ([{"n": 2}], list[Picky], ["LookupError", "not this one", "Picky"]),
        (3, Opaque, ["found 3", "expected `Opaque`"]),
        ({}, Item | Bag, ["annotation", "Item | ", "change the annotation"]),
        (3, "Item", ["annotation", "Item"]),
    ],
)
def test_data_that_does_not_fit_is_refused_with_path_found_and_expected(data, hint, words):
    with pytest.raises(ValidationError) as caught:
        convert(data, hint)
    assert all(word in str(caught.value) for word in words), str(caught.value)
