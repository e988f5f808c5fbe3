"""Values and stored bytes at the edges of what the codec keeps: each refusal names what it found."""

from __future__ import annotations

import functools
from enum import Enum
from typing import Any

import msgspec
import pydantic
import pytest

from semel.errors import SerializationError, ValidationError
from semel.kernel.registry import REGISTRY
from semel.kernel.unpack import DICT, SET
from semel.kernel.values import convert, decode, encode, register_annotations, value


def stored(code: int, items: list[object]) -> bytes:
    """Bytes as a program that is not ours might write them."""
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, msgspec.msgpack.encode(items)))


@pytest.mark.parametrize(
    ("code", "items", "found"),
    [(SET, [1, 1], "the same element twice in a set"), (DICT, [1, "a", 1, "b"], "the same key twice in a dict")],
)
def test_what_is_stored_twice_where_it_can_be_once_is_refused(code: int, items: list[object], found: str) -> None:
    assert decode(stored(SET, [1, 2])) == {1, 2}
    assert decode(stored(DICT, [1, "a"])) == {1: "a"}
    with pytest.raises(SerializationError, match=found):
        decode(stored(code, items))


def test_an_enum_whose_value_cannot_be_kept_is_kept_by_name_or_refused_by_place() -> None:
    class Odd(Enum):
        THING = object()

    register_annotations(Odd)
    try:
        assert decode(encode(Odd.THING)) is Odd.THING
    except SerializationError as refusal:
        assert "Odd" in str(refusal)  # noqa: PT017  # either answer is sound; a silent change is not


def test_what_an_enum_holds_is_no_place_in_it() -> None:
    class Tone(Enum):
        LOW = "low"

    register_annotations(Tone)
    with pytest.raises(SerializationError, match=r"\[1\]"):
        encode([Tone.LOW, object()])


def test_a_struct_that_has_gained_a_field_without_default_is_refused() -> None:
    before = msgspec.defstruct("EdgeStruct", [("x", int)])
    after = msgspec.defstruct("EdgeStruct", [("x", int), ("y", int)])
    value("edge-struct")(before)
    data = encode(before(1))
    value("edge-struct")(after)
    with pytest.raises(SerializationError, match=r"no field 'y'"):
        decode(data)


def test_a_model_that_has_gained_a_field_without_default_is_refused() -> None:
    before = pydantic.create_model("EdgeModel", x=(int, ...))
    after = pydantic.create_model("EdgeModel", x=(int, ...), y=(int, ...))
    value("edge-model")(before)
    data = encode(before(x=1))
    value("edge-model")(after)
    with pytest.raises(SerializationError, match=r"no field 'y'"):
        decode(data)


def test_a_model_with_a_field_that_is_not_set_is_refused() -> None:
    model: Any = pydantic.create_model("EdgeUnset", x=(int, ...))
    value("edge-unset")(model)
    with pytest.raises(SerializationError, match="EdgeUnset"):
        encode(model.model_construct())


class Shade(Enum):
    DARK = 1


def paint(shade: Shade, coats: int) -> None: ...


def test_the_annotations_of_a_partial_are_those_of_its_function() -> None:
    register_annotations(functools.partial(paint, coats=2))
    assert decode(encode(Shade.DARK)) is Shade.DARK


@pytest.mark.parametrize("hint", [Any, object])
def test_a_hint_of_anything_converts_nothing(hint: Any) -> None:
    data = {"a": [1]}
    assert convert(data, hint) is data


class Custom:
    """A class of a user's own that says itself what it accepts."""

    @classmethod
    def model_validate(cls, data: object) -> Custom:
        if data != "good":
            raise ValueError("only 'good' is good")
        return cls()


class Silent(Custom):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_a_class_that_validates_itself_is_asked_and_its_words_are_kept() -> None:
    assert isinstance(convert("good", Custom), Custom)
    with pytest.raises(ValidationError, match="only 'good' is good"):
        convert("bad", Custom)


def test_an_instance_passes_as_it_is() -> None:
    made = Custom()
    assert convert(made, Custom) is made


def test_a_value_without_a_repr_is_refused_without_it() -> None:
    with pytest.raises(ValidationError, match=r"found `Silent`, expected `int`; pass data that fits list\[int\]"):
        convert([Silent()], list[int])


def test_a_member_nested_too_deeply_is_refused_like_anything_else() -> None:
    register_annotations(Shade)
    nested: object = Shade.DARK
    for _ in range(100):
        nested = [nested]
    with pytest.raises(SerializationError, match="more than 100 levels of nesting"):
        encode(nested)


class Node(msgspec.Struct):
    child: Node | None = None


def test_data_nested_too_deeply_for_its_annotation_is_refused() -> None:
    data: object = None
    for _ in range(100_000):
        data = {"child": data}
    with pytest.raises(ValidationError, match="nested too deeply"):
        convert(data, Node)


def test_a_member_has_no_fields_and_so_no_defaults() -> None:
    register_annotations(Shade)
    entry = REGISTRY.of_class(Shade)
    assert entry is not None
    assert entry.fields == ()
    with pytest.raises(KeyError):
        entry.default("DARK")


def test_a_type_alias_stands_for_what_it_names() -> None:
    class Hue(Enum):
        RED = 1

    # As `type Alias = Hue` makes it from Python 3.12 on.
    alias = type("TypeAliasType", (), {"__value__": Hue})()

    def paint(hue: object) -> None: ...

    paint.__annotations__["hue"] = alias
    register_annotations(paint)
    assert decode(encode(Hue.RED)) is Hue.RED
