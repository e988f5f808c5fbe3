import dataclasses
import functools
from collections import namedtuple
from collections.abc import Callable
from enum import Enum, Flag
from typing import Annotated, Any, ClassVar, Generic, Literal, NewType, TypeVar

import msgspec
import pydantic
import pytest

from semel.errors import SerializationError, ValidationError
from semel.kernel.values import decode, encode, register_annotations, round_trip, value

T = TypeVar("T")


def made(name, *fields, module=__name__):
    """A dataclass as a reload or a factory would make it."""
    cls = dataclasses.make_dataclass(name, fields)
    cls.__module__ = module
    return cls


def test_annotations_register_every_class_they_mention():
    class Shade(Enum):
        DARK = 1

    class Tint(Enum):
        PALE = 1

    @dataclasses.dataclass
    class Leaf:
        shade: Shade
        kin: ClassVar[set] = set()

    class Branch(msgspec.Struct):
        leaves: list[Leaf]

    class Trunk(pydantic.BaseModel, arbitrary_types_allowed=True):
        branch: dict[str, Branch | None]

    @dataclasses.dataclass
    class Box(Generic[T]):
        item: T

    Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - both spellings exist
    Wood = NewType("Wood", Pair)

    def plant(trunk: Annotated[Trunk, "meta"], wood: Wood, tint: Literal[Tint.PALE], other: "Missing") -> Box[int]:  # noqa: F821
        """Its last parameter does not resolve."""

    register_annotations(plant)
    leaf = Leaf(Shade.DARK)
    sent = [Trunk(branch={"a": Branch([leaf])}), Pair(1, leaf), Tint.PALE, Box(leaf)]
    assert decode(encode(sent)) == sent
    assert b"test_annotations_register_every_class_they_mention.Leaf" in encode(leaf)
    assert b"<locals>" not in encode(leaf)


def test_methods_wrapped_and_partial_functions_are_looked_through():
    one, two = made("ViaMethod", "x"), made("ViaPartial", "x")

    class Holder:
        def method(self, item: one) -> None: ...

    @functools.wraps(Holder.method)
    def wrapper(*args): ...

    def function(item: two, other: int) -> None: ...

    register_annotations(wrapper)
    register_annotations(functools.partial(function, other=1))
    register_annotations(Holder().method)
    assert round_trip([one(1), two(2)]) == [one(1), two(2)]


def test_a_class_that_refers_to_itself_is_registered():
    @dataclasses.dataclass
    class Node:
        next: "Node | None" = None

    register_annotations(Node)
    assert round_trip(Node(Node())) == Node(Node())


def test_a_model_registers_classes_that_only_pydantic_can_resolve():
    @dataclasses.dataclass
    class Inside:
        x: int

    class Outside(pydantic.BaseModel):
        inside: "list[Inside]"

    register_annotations(Outside)
    assert round_trip(Outside(inside=[Inside(1)])) == Outside(inside=[Inside(1)])


@pytest.mark.parametrize("odd", [None, 3, len, object(), Callable[[int], str], Any, functools.partial(len)])
def test_what_has_no_annotations_registers_nothing(odd):
    register_annotations(odd)


def test_two_classes_cannot_have_one_name():
    first, second = made("Twin", "x", module="shop"), made("Twin", "x", module="bank")
    register_annotations(first)
    for register in (register_annotations, value("Twin")):
        with pytest.raises(ValidationError) as caught:
            register(second)
        assert all(word in str(caught.value) for word in ("shop.Twin", "bank.Twin", '@semel.value("another-name")'))
    value("bank-twin")(second)
    register_annotations(second)
    assert type(round_trip([second(1)])[0]) is second
    assert type(round_trip([first(1)])[0]) is first


def test_a_class_made_again_takes_its_name_over():
    old, new = made("Again", "x"), made("Again", "x", "y")
    value("again")(old)
    stored = encode(old(1))
    value("again")(made("Again", "x", ("y", int, 5)))
    assert dataclasses.asdict(decode(stored)) == {"x": 1, "y": 5}
    with pytest.raises(SerializationError, match="not registered"):
        encode(old(1))
    value("again")(new)


def test_a_class_named_later_is_still_read_under_its_first_name():
    cls = made("Renamed", "x")
    register_annotations(cls)
    stored = encode(cls(1))
    value("renamed")(cls)
    assert b"renamed" in encode(cls(1))
    assert decode(stored) == cls(1)


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb", "\ud800", None, 3])
def test_a_name_is_printable_and_short(name):
    with pytest.raises(ValidationError, match="name of a value class"):
        value(name)(made("Named", "x"))


@pytest.mark.parametrize("cls", [int, type("MyStr", (str,), {}), type("Plain", (), {}), KeyError, 3, msgspec.Struct])
def test_a_class_without_fields_to_keep_cannot_be_registered(cls):
    with pytest.raises(ValidationError, match=r"put @semel\.value above"):
        value("nothing")(cls)


def test_a_subclass_of_a_registered_class_is_not_taken_for_it():
    base = value("Base")(made("Base", "x"))
    sub = dataclasses.make_dataclass("Sub", ["y"], bases=(base,))
    with pytest.raises(SerializationError, match="Sub"):
        encode(sub(1, 2))


BEFORE, AFTER = "before", "after"


def evolving(kind, stage):
    added = {BEFORE: (), AFTER: (("tags", list, []), ("size", int, 7))}[stage]
    if kind == "dataclass":
        extra = [("tags", list, dataclasses.field(default_factory=list)), ("size", int, 7)]
        return made("Evolving", "name", *(extra if added else ()))
    if kind == "struct":
        return msgspec.defstruct("Evolving", [("name", str), *added], module=__name__)
    if kind == "model":
        return pydantic.create_model(
            "Evolving", __module__=__name__, name=(str, ...), **{n: (t, d) for n, t, d in added}
        )
    cls = namedtuple("Evolving", ["name", *(n for n, _, _ in added)], defaults=[d for _, _, d in added])  # noqa: PYI024
    cls.__module__ = __name__
    return cls


@pytest.mark.parametrize("kind", ["dataclass", "struct", "model", "namedtuple"])
def test_new_fields_take_their_defaults_and_unknown_ones_are_refused(kind):
    name = f"evolving-{kind}"
    before, after = evolving(kind, BEFORE), evolving(kind, AFTER)
    value(name)(before)
    stored = encode(before(name="n"))
    value(name)(after)
    assert decode(stored) == after(name="n", tags=[], size=7)
    if kind != "namedtuple":
        assert decode(stored).tags is not decode(stored).tags
    stored = encode(after(name="n"))
    value(name)(before)
    with pytest.raises(SerializationError, match=r"'size'.*'tags'.*Evolving"):
        decode(stored)


def test_a_missing_field_without_default_is_refused():
    stored = encode(value("grown")(made("Grown", "x"))(1))
    value("grown")(made("Grown", "x", "y"))
    with pytest.raises(SerializationError, match=r"no field 'y'.*Grown has no default"):
        decode(stored)


def test_a_name_that_nobody_registered_is_refused():
    cls = value("gone-for-good")(made("Gone", "x"))
    data = encode(cls(1)).replace(b"gone-for-good", b"gone-for-evil")
    with pytest.raises(SerializationError, match=r"'gone-for-evil'.*import the module"):
        decode(data)


def test_a_member_that_is_gone_is_refused():
    old = value("shade")(Enum("Shade", "RED BLUE", module=__name__))
    stored = encode(old.BLUE)
    value("shade")(Enum("Shade", "RED", module=__name__))
    with pytest.raises(SerializationError, match=r"'BLUE'.*'RED'"):
        decode(stored)
    flags = value("flags")(Flag("Flags", "A B", module=__name__))
    stored = encode(flags.A | flags.B)
    value("flags")(Flag("Flags", "A", module=__name__))
    with pytest.raises(SerializationError, match="3"):
        decode(stored)
