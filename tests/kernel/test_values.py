from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import io
import math
import os
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from pathlib import Path
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semel.errors import SerializationError
from semel.kernel.values import decode, encode, fingerprint, round_trip, value

BERLIN = ZoneInfo("Europe/Berlin")
FIRST, LAST = dt.datetime.min, dt.datetime.max  # noqa: DTZ901 - naive values travel too


@value("test.Color")
class Color(Enum):
    RED = 1
    GREEN = "green"


@value("test.Word")
class Word(StrEnum):
    YES = "yes"
    NO = "no"


@value("test.Level")
class Level(IntEnum):
    LOW = 1
    HIGH = 2


@value("test.Perm")
class Perm(Flag):
    R = auto()
    W = auto()


@value("test.Line")
@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    sku: object
    amount: object = Decimal(1)


@value("test.Order")
@dataclasses.dataclass
class Order:
    name: object
    lines: object = dataclasses.field(default_factory=list)
    total: object = dataclasses.field(init=False, default=None)


@value("test.Empty")
@dataclasses.dataclass(frozen=True)
class Empty:
    pass


@value("test.Packet")
class Packet(msgspec.Struct, frozen=True):
    body: object
    ttl: object = msgspec.UNSET


@value("test.Point")
class Point(NamedTuple):
    x: object
    y: object = 0


@value("test.Model")
class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: object
    size: int = 3
    _secret: object = pydantic.PrivateAttr(default=None)


def same(left: object, right: object) -> bool:
    """Equal in type and content, where == is too kind (1 == True) or too strict (NaN)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Enum):
        return left is right
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and (
            left == right or (math.isnan(left) and math.isnan(right))
        )
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, set | frozenset):
        return len(left) == len(right) and sorted(map(fingerprint, left)) == sorted(map(fingerprint, right))
    if isinstance(left, dt.datetime | dt.time):
        plain = left.replace(tzinfo=None) == right.replace(tzinfo=None) and left.fold == right.fold
        return plain and repr(left.tzinfo) == repr(right.tzinfo)
    if dataclasses.is_dataclass(left):
        return all(same(getattr(left, f.name), getattr(right, f.name)) for f in dataclasses.fields(left))
    if isinstance(left, msgspec.Struct):
        return all(same(getattr(left, f), getattr(right, f)) for f in left.__struct_fields__)
    if isinstance(left, pydantic.BaseModel):
        return same(left.__getstate__(), right.__getstate__())
    return left == right


texts = st.text(st.characters(exclude_categories=())) | st.text(max_size=5)
zones = st.sampled_from([None, dt.UTC, BERLIN, ZoneInfo("UTC")]) | st.builds(
    dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)), texts
)
hashables = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**300), 2**300)
    | st.sampled_from([-(2**63), -(2**63) - 1, 2**63, 2**64 - 1, 2**64])
    | st.floats()
    | texts
    | st.binary(max_size=40)
    | st.decimals(allow_nan=False)
    | st.builds(dt.datetime.replace, st.datetimes(), tzinfo=zones, fold=st.integers(0, 1))
    | st.dates()
    | st.builds(dt.time.replace, st.times(), tzinfo=zones, fold=st.integers(0, 1))
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([*Color, *Word, *Level, Perm.R, Perm.R | Perm.W, Perm(0), Empty(), msgspec.UNSET])
)
keys = hashables | st.builds(Line, hashables, hashables) | st.tuples(hashables, hashables) | hashables.map(Point)


def with_total(order: Order, total: object) -> Order:
    order.total = total
    return order


def with_secret(model: Model, secret: object) -> Model:
    model._secret = secret
    return model


def grown(inner):
    return (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
        | st.builds(Line, inner, inner)
        | st.builds(with_total, st.builds(Order, inner, inner), inner)
        | inner.map(Packet)
        | st.builds(Packet, inner, inner)
        | st.tuples(inner, inner).map(Point._make)
        | st.builds(with_secret, st.builds(Model, name=inner, other=inner), inner)
    )


values = st.recursive(hashables | st.decimals(), grown, max_leaves=12)


@settings(max_examples=300, deadline=None)
@given(values)
def test_a_value_comes_back_with_its_type_and_content(sent):
    assert same(decode(encode(sent)), sent)
    assert same(round_trip(sent), sent)
    assert fingerprint(decode(encode(sent))) == fingerprint(sent)


@settings(max_examples=100, deadline=None)
@given(values)
def test_the_bytes_of_a_value_are_the_same_after_a_round_trip(sent):
    assert encode(decode(encode(sent))) == encode(sent)


@pytest.mark.parametrize(
    "sent",
    [
        "\ud800", "a\x00b", "\ud83d\ude00", 2**70, -(2**70), 10**5000, math.nan, math.inf, -0.0, 5e-324, 1e16,
        Decimal("NaN"), Decimal("sNaN12"), Decimal("-Infinity"), Decimal("10.10"), Decimal("-0E+5"), Decimal("1E-999"),
        LAST, FIRST,
        dt.datetime(2026, 10, 25, 2, 30, 0, 1, BERLIN, fold=1),
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30, microseconds=7), "odd")),
        dt.timedelta.min, dt.timedelta.max, dt.date.min, dt.time(23, 59, 59, 999999, dt.UTC), UUID(int=0),
        {1: "a", True + 1: "b", None: "c", (1, 2): "d", "e": "f"}, {"\ud800": 2**70, "z": 1, "a": 2},
        {b"k": {1.5: [()]}}, [[], (), {}, set(), frozenset()], Color.GREEN, Word.YES, Level.HIGH, Perm.R | Perm.W,
        Line("sku", (1, {2})), Point(1, [2]), [Point(1)], Empty(),
    ],
    ids=lambda sent: type(sent).__name__,
)  # fmt: skip
def test_an_edge_value_is_kept_exactly(sent):
    assert same(decode(encode(sent)), sent)
    assert same(decode(memoryview(encode([sent])))[0], sent)


def test_a_named_zone_and_utc_come_back_as_the_same_object():
    assert round_trip([dt.datetime(2026, 1, 1, tzinfo=BERLIN)])[0].tzinfo is BERLIN
    assert round_trip([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)])[0].tzinfo is dt.UTC


def test_the_order_of_a_dict_is_kept():
    assert list(decode(encode({"b": 1, "a": 2, 3: 4}))) == ["b", "a", 3]


def test_a_value_is_put_back_without_running_its_post_init():
    runs = []

    @value("test.Counted")
    @dataclasses.dataclass
    class Counted:
        n: int

        def __post_init__(self):
            runs.append(self.n)

    @value("test.CountedStruct")
    class CountedStruct(msgspec.Struct):
        n: int

        def __post_init__(self):
            self.n += 1

    assert decode(encode(Counted(1))) == Counted(1)
    assert runs == [1, 1]
    assert decode(encode(CountedStruct(1))).n == 2


def test_a_model_keeps_its_fields_set_extra_and_private_values():
    sent = with_secret(Model(name="n", other=Decimal(1)), (1,))
    back = round_trip(sent)
    assert back == sent
    assert back.model_fields_set == {"name", "other"}
    assert back.other == Decimal(1)
    assert back._secret == (1,)


class MyStr(str):
    __slots__ = ()


class MyInt(int):
    pass


class Reduced:
    def __reduce__(self):
        return (os.system, ("true",))


@dataclasses.dataclass
class Unregistered:
    x: int


class UnregisteredEnum(Enum):
    A = 1


Unnamed = namedtuple("Unnamed", "x")  # noqa: PYI024 - both spellings exist


class OtherZone(dt.tzinfo):
    def utcoffset(self, _):
        return dt.timedelta(0)


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (MyStr("x"), ["MyStr", "subclass of str", "str(...)"]),
        (MyInt(1), ["MyInt", "subclass of int"]),
        (OrderedDict(a=1), ["OrderedDict", "subclass of dict"]),
        (defaultdict(list), ["defaultdict", "dict(...)"]),
        (Counter("a"), ["Counter"]),
        (bytearray(b"x"), ["bytearray", "bytes(...)"]),
        (memoryview(b"x"), ["memoryview", "bytes(...)"]),
        (Unregistered(1), ["Unregistered", "not registered", "annotate", "@semel.value('Unregistered')"]),
        (UnregisteredEnum.A, ["UnregisteredEnum", "not registered"]),
        (Unnamed(1), ["Unnamed", "not registered"]),
        (Reduced(), ["Reduced"]),
        (object(), ["builtins.object"]),
        (math.sqrt, ["math.sqrt"]),
        (lambda: 1, ["function", "lambda"]),
        ((n for n in ()), ["generator"]),
        (io.StringIO(), ["StringIO"]),
        (Order, ["test_values.Order"]),
        (1j, ["complex"]),
        (range(3), ["range"]),
        (dt.datetime(2026, 1, 1, tzinfo=OtherZone()), ["OtherZone", "ZoneInfo"]),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_cannot_be_kept_is_refused_by_name_and_path(refused, words):
    for sent, path in [
        (refused, "value: "),
        ({"a": [1, (2, refused)]}, "value['a'][1][1]: "),
        (Order("n", [Line(1, refused)]), "value.lines[0].amount: "),
    ]:
        for refuse in (encode, fingerprint, round_trip):
            with pytest.raises(SerializationError) as caught:
                refuse(sent)
            assert str(caught.value).startswith(path)
            assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_refused_key_or_set_element_is_named():
    with pytest.raises(SerializationError, match=r"value key the builtin_function_or_method builtins.len: "):
        encode({len: 1})
    with pytest.raises(SerializationError, match=r"value\{an instance of .*MyInt\}: "):
        encode({MyInt(3)})


class Hostile(type):
    def __hash__(cls):
        raise RuntimeError


class Closed:
    def __getattribute__(self, name):
        raise RuntimeError


def test_an_object_that_resists_being_looked_at_is_refused():
    hostile = Hostile("Victim", (), {})
    for sent in (hostile(), {"a": [hostile()]}, Closed(), {Closed(): 1}, {10**6000: Closed()}):
        with pytest.raises(SerializationError):
            encode(sent)


def test_a_field_that_was_never_set_is_refused():
    order = Order("n")
    del order.name
    with pytest.raises(SerializationError, match="name"):
        encode([order])


def nested(depth, wrap):
    made = 1
    for _ in range(depth):
        made = wrap(made)
    return made


WRAPS = [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {1: v}, lambda v: frozenset([v]), Line, Packet]


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_hundred_levels_are_kept_and_one_more_is_refused(wrap):
    kept = nested(100, wrap)
    assert encode(decode(encode(kept))) == encode(kept)
    with pytest.raises(SerializationError, match="100 levels of nesting"):
        encode(nested(101, wrap))


def test_levels_of_different_kinds_count_together():
    kept = nested(14, lambda inner: [({1: Line({"k": [(inner,)]})},)])
    assert encode(decode(encode(kept))) == encode(kept)
    with pytest.raises(SerializationError, match="levels of nesting"):
        encode([[[kept]]])


def test_a_cycle_is_refused():
    loop: list = [1]
    loop += [loop, loop]
    with pytest.raises(SerializationError, match=r"value\[1\]\[1\].*: .*cycle"):
        encode(loop)
    with pytest.raises(SerializationError, match="cycle"):
        encode(Order(loop))


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x91" * 200_000 + b"\xc0", b"\x81\xa1a" * 200_000 + b"\xc0", b"\x91" * 500 + b"\xc0", b"\x91" * 104 + b"\xc0",
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x04", b"", b"\x01\x01", b"\xc1",
        b"\xd4\x7f\x00", b"\xd4\x04\xc0", b"\xd4\x05\x00", b"\xd4\x03x", b"\xd6\x0e\x92\xa1x\x80", b"\x81\x90\x80\x80",
        b"\xc7\x09\x08\x98" + b"\xff" * 8, b"\xd5\x05\x92\x01\x01",
    ],
    ids=lambda bomb: bomb[:8].hex(),
)  # fmt: skip
def test_bytes_that_are_not_ours_are_refused(bomb):
    with pytest.raises(SerializationError):
        decode(bomb)


def test_extensions_nested_too_deeply_are_refused():
    data = b"\x90"
    for _ in range(400):
        data = msgspec.msgpack.encode(msgspec.msgpack.Ext(4, msgspec.msgpack.encode([msgspec.Raw(data)])))
    with pytest.raises(SerializationError, match="levels of nesting"):
        decode(data)


def test_decoding_something_that_is_not_bytes_is_refused():
    with pytest.raises(SerializationError):
        decode("text")  # type: ignore[arg-type]


def decode_or_refuse(data):
    with contextlib.suppress(SerializationError):
        decode(data)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60) | st.tuples(st.integers(0, 20), st.binary(max_size=30)).map(
    lambda part: msgspec.msgpack.encode(msgspec.msgpack.Ext(*part))
))  # fmt: skip
def test_random_bytes_raise_nothing_but_serialization_error(data):
    decode_or_refuse(data)


@settings(max_examples=300, deadline=None)
@given(values, st.data())
def test_damaged_bytes_raise_nothing_but_serialization_error(sent, data):
    damaged = bytearray(encode(sent))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    decode_or_refuse(bytes(damaged))
    cut = data.draw(st.integers(0, len(damaged) - 1))
    with pytest.raises(SerializationError):
        decode(encode(sent)[:cut])
    with pytest.raises(SerializationError):
        decode(encode(sent) + b"\x00")


@pytest.mark.parametrize(
    "different",
    [
        [1, True, 1.0, Decimal(1), "1", b"1", Level.LOW, Decimal("1.0")],
        [[1, 2], [2, 1], (1, 2), {1, 2}, frozenset({1, 2}), {1: 2}],
        ["yes", Word.YES, b"yes"],
        [None, 0, False, "", b"", [], (), {}, set(), 0.0, -0.0, msgspec.UNSET],
        [{"a": 1}, {"a": 2}, {"b": 1}, Line("a", 1), Point("a", 1), Packet("a", 1)],
    ],
)
def test_values_of_different_type_or_content_have_different_fingerprints(different):
    assert len({fingerprint(one) for one in different}) == len(different)
    assert len({fingerprint([one]) for one in different}) == len(different)


def test_the_order_of_dicts_and_sets_does_not_change_a_fingerprint():
    forward, backward = {"a": {1: 2, "b": 3, None: 2**70}, "c": 1}, {"c": 1, "a": {None: 2**70, "b": 3, 1: 2}}
    assert fingerprint(forward) == fingerprint(backward)
    assert fingerprint(Order(forward)) == fingerprint(Order(backward))
    assert fingerprint({"\ud800": 1, "a": 2}) == fingerprint({"a": 2, "\ud800": 1})
    assert len(fingerprint(forward)) == 16


FIXED = """
from decimal import Decimal
from semel.kernel.values import encode, fingerprint
sent = {"z": {"b", "a", "c", 1, None, (1, "x"), 2.5}, "a": frozenset("hello"), 3: [Decimal("1.50"), 2**90]}
print(fingerprint(sent).hex(), encode(sent).hex())
"""


def test_fingerprints_and_bytes_are_the_same_in_every_process():
    source = Path(sys.modules[encode.__module__].__file__).parents[2]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", FIXED],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(source)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }  # fmt: skip
    assert len(outputs) == 1


def test_an_encoding_written_before_is_still_read():
    assert decode(bytes.fromhex("82a161c7050331302e3130a162d604930102c0")) == {"a": Decimal("10.10"), "b": (1, 2, None)}
