"""User values: what travels, as which bytes, and how classes and exceptions take part.

This module decides the public surface; `codec` and `unpack` decide the bytes, `registry` what a class
name means, `convert` how parsed JSON becomes typed values, `errordata` what is kept of an
exception.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from semel.kernel.codec import SCALARS, decode, describe_error, encode, fingerprint
from semel.kernel.convert import convert
from semel.kernel.errordata import ErrorData
from semel.kernel.registry import REGISTRY, annotations_of, is_value_class
from semel.kernel.unpack import ENCODING

__all__ = [
    "ENCODING",
    "ErrorData",
    "convert",
    "decode",
    "describe_error",
    "encode",
    "fingerprint",
    "register_annotations",
    "round_trip",
    "value",
]

T = TypeVar("T")


def round_trip(value: object) -> Any:
    """What a reader of the journal would see instead of `value`. Immutable scalars are their own round trip."""
    return value if type(value) in SCALARS else decode(encode(value))


def value(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: values of this class are stored under `name`, wherever the class lives.

    The classes of its fields are registered too. Raises ValidationError when another class has
    the name, or the class has no fields to keep.
    """

    def register(cls: type[T]) -> type[T]:
        REGISTRY.add(name, cls)
        REGISTRY.add_found(cls)
        return cls

    return register


def register_annotations(function_or_class: object) -> None:
    """Register every class that the annotations mention, through fields and generics, under its qualified name.

    A class that is a value class itself is registered too. Annotations that do not resolve are ignored.
    Raises ValidationError when a name belongs to another class.
    """
    found = [function_or_class] if is_value_class(function_or_class) else annotations_of(function_or_class)
    for hint in found:
        REGISTRY.add_found(hint)
