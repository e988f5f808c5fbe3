"""The one encoding of values that journals carry, and what it refuses.

msgpack, with an extension code for everything msgpack would lose. A value comes back with
the type and content it had, or it is refused with its path; nothing is degraded silently.
Classes travel by registered name, never by import path, and no stored byte makes code run
other than that of putting a registered class back. A zoned datetime carries the key of its
zone: reading it needs the machine's time zone data.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Encoder, Ext

from semel.errors import SerializationError
from semel.kernel.errordata import ErrorData, describe
from semel.kernel.registry import REGISTRY, describe_class, is_value_class
from semel.kernel.unpack import (
    DATE,
    DATETIME,
    DECIMAL,
    DEPTH_MAX,
    DICT,
    ENCODING,
    ERROR,
    FROZENSET,
    INT,
    OBJECT,
    SET,
    STR,
    TIME,
    TIMEDELTA,
    TOO_DEEP,
    TUPLE,
    UNSET,
    UUID_16,
    unpack,
)

SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes, Decimal})

_TO_BYTES: Final = Encoder().encode
_ONLY_STR: Final = frozenset({str})
_FAST_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_CAREFUL_PLAIN: Final = frozenset({type(None), bool, float, bytes})
_PATH_MAX: Final = 200
_INT64_MIN: Final = -(2**63)
_UINT64_MAX: Final = 2**64 - 1


class _RefusedError(Exception):
    """This very object cannot be kept. Its path is found afterwards, so that success does not pay for it."""


@dataclass(frozen=True, slots=True)
class _Mode:
    """How to pack: which types msgpack takes as they are, whether order must not matter, how far errors go."""

    plain: frozenset[type]
    canonical: bool = False
    inside_error: bool = False


# Fast: every str and int is taken for plain until msgpack refuses one (a lone surrogate, over 64 bits).
_FAST: Final = _Mode(_FAST_PLAIN)
_CAREFUL: Final = _Mode(_CAREFUL_PLAIN)
_FAST_CANONICAL: Final = _Mode(_FAST_PLAIN, canonical=True)
_CANONICAL: Final = _Mode(_CAREFUL_PLAIN, canonical=True)
_INSIDE_ERROR: Final = _Mode(_CAREFUL_PLAIN, inside_error=True)
_CANONICAL_INSIDE_ERROR: Final = _Mode(_CAREFUL_PLAIN, canonical=True, inside_error=True)


def encode(value: object) -> bytes:
    """The bytes of `value`. Raises SerializationError with the path inside the value, its type and what to do.

    An exception is kept as data: it decodes to an `ErrorData`.
    """
    try:
        if type(value) in _FAST_PLAIN:
            return _TO_BYTES(value)
    except Exception:  # a lone surrogate, over 64 bits, or a class that resists being looked at
        return _encode(value, fast=_CAREFUL, careful=_CAREFUL)
    return _encode(value, fast=_FAST, careful=_CAREFUL)


def fingerprint(value: object) -> bytes:
    """16 bytes that are equal for equal values of equal types, in every process.

    The order of a dict or set does not matter. Type and exact form do: 1, True, 1.0 and
    Decimal("1") differ, and so do Decimal("1.0") and Decimal("1.00"). The stack of an exception
    and the `model_fields_set` of a model are left out. Raises SerializationError as `encode` does.
    """
    data = _encode(value, fast=_FAST_CANONICAL, careful=_CANONICAL)
    return hashlib.blake2b(data, digest_size=16).digest()


def decode(data: bytes | memoryview) -> Any:
    """The value of `data`. Raises SerializationError when these are not the bytes of a value, whatever they are."""
    try:
        return unpack(data, 0)
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(
            f"stored value: found bytes that are not {ENCODING} ({type(error).__name__}: {error}), "
            f"expected what encode gave; the bytes were changed, or are not a value"
        ) from None


def describe_error(error: BaseException) -> ErrorData:
    """`error` as data, with its args when they can be kept. Never raises, whatever the exception's methods do."""
    return describe(error, lambda args: _TO_BYTES(_pack(args, _INSIDE_ERROR, 0)))


def _encode(value: object, *, fast: _Mode, careful: _Mode) -> bytes:
    try:
        return _TO_BYTES(_pack(value, fast, 0))
    except Exception:
        try:
            return _TO_BYTES(_pack(value, careful, 0))
        except Exception:
            raise SerializationError(_explain(value, careful)) from None


def _explain(value: object, mode: _Mode) -> str:
    try:
        path, reason = _locate(value, mode)
    except Exception as error:
        # Code of the user's class ran: a metaclass, a property, a hash, a comparison.
        return f"value: found an object that cannot be looked at ({type(error).__name__}), expected plain data"
    return f"{path if len(path) <= _PATH_MAX else f'{path[:_PATH_MAX]}…'}: {reason}"


def _pack(value: Any, mode: _Mode, depth: int) -> Any:
    """`value` as something that msgpack keeps exactly. Raises _RefusedError."""
    cls = type(value)
    if cls in mode.plain:
        return value
    packer = _PACKERS.get(cls)
    return packer(value, mode, depth) if packer is not None else _pack_instance(value, mode, depth)


def _pack_items(values: Any, mode: _Mode, depth: int) -> Any:
    if depth >= DEPTH_MAX:
        raise _RefusedError(TOO_DEEP)
    plain = mode.plain
    if plain.issuperset(map(type, values)):
        return values
    depth += 1
    return [item if type(item) in plain else _pack(item, mode, depth) for item in values]


def _pack_fields(value: dict[str, Any], mode: _Mode, depth: int) -> dict[str, Any]:
    plain = mode.plain
    if mode.canonical:
        value = dict(sorted(value.items()))
    if plain.issuperset(map(type, value.values())):
        return value
    depth += 1
    return {key: item if type(item) in plain else _pack(item, mode, depth) for key, item in value.items()}


def _pack_dict(value: dict[Any, Any], mode: _Mode, depth: int) -> Any:
    if depth >= DEPTH_MAX:
        raise _RefusedError(TOO_DEEP)
    if str in mode.plain and _ONLY_STR.issuperset(map(type, value)):
        return _pack_fields(value, mode, depth)
    depth += 1
    pairs = [(_pack(key, mode, depth), _pack(item, mode, depth)) for key, item in value.items()]
    if _ONLY_STR.issuperset(type(key) for key, _ in pairs):
        return dict(sorted(pairs, key=_key_of) if mode.canonical else pairs)
    if mode.canonical:
        pairs.sort(key=_TO_BYTES)
    return Ext(DICT, _TO_BYTES([part for pair in pairs for part in pair]))


def _key_of(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _pack_set(code: int) -> Callable[[Any, _Mode, int], Ext]:
    # Sorted, so that the bytes do not depend on the hash seed of the process.
    return lambda value, mode, depth: Ext(code, _TO_BYTES(sorted(_pack_items(value, mode, depth), key=_TO_BYTES)))


def _pack_str(value: str, _mode: _Mode, _depth: int) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(STR, value.encode("utf-8", "surrogatepass"))
    return value


def _pack_int(value: int, _mode: _Mode, _depth: int) -> Any:
    if _INT64_MIN <= value <= _UINT64_MAX:
        return value
    return Ext(INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _pack_zone(zone: dt.tzinfo | None, mode: _Mode) -> Any:
    if zone is None:
        return None
    if zone is dt.UTC:
        return 0
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    if type(zone) is not dt.timezone:
        raise _RefusedError(
            f"found a time zone of {describe_class(type(zone))}, expected datetime.timezone or a ZoneInfo with a key; "
            f"convert the time to one of these"
        )
    offset = zone.utcoffset(None)
    name = zone.tzname(None)
    parts = [offset.days, offset.seconds, offset.microseconds]
    return parts if name == dt.timezone(offset).tzname(None) else [*parts, _pack_str(name, mode, 0)]


def _pack_datetime(value: dt.datetime, mode: _Mode, _depth: int) -> Ext:
    parts = [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond]
    return Ext(DATETIME, _TO_BYTES([*parts, value.fold, _pack_zone(value.tzinfo, mode)]))


def _pack_time(value: dt.time, mode: _Mode, _depth: int) -> Ext:
    parts = [value.hour, value.minute, value.second, value.microsecond]
    return Ext(TIME, _TO_BYTES([*parts, value.fold, _pack_zone(value.tzinfo, mode)]))


def _pack_error(value: ErrorData, mode: _Mode, _depth: int) -> Ext:
    stack = [] if mode.canonical else [_pack_str(line, mode, 0) for line in value.stack]
    return Ext(ERROR, _TO_BYTES([_pack_str(value.type, mode, 0), _pack_str(value.message, mode, 0), value.data, stack]))


def _pack_exception(value: BaseException, mode: _Mode, depth: int) -> Ext:
    # Args of an exception among another's args are left out: their number could grow without bound.
    inner = _CANONICAL_INSIDE_ERROR if mode.canonical else _INSIDE_ERROR
    data = describe(value, lambda args: b"" if mode.inside_error else _TO_BYTES(_pack(args, inner, 0)))
    return _pack_error(data, mode, depth)


def _pack_instance(value: Any, mode: _Mode, depth: int) -> Ext:
    entry = REGISTRY.of_class(type(value))
    if entry is None:
        if isinstance(value, BaseException):
            return _pack_exception(value, mode, depth)
        raise _RefusedError(_refusal(value))
    if depth >= DEPTH_MAX:
        raise _RefusedError(TOO_DEEP)
    try:
        state = entry.state(value)
        extras = entry.extras(value)
    except AttributeError as missing:
        raise _RefusedError(
            f"found an instance of {describe_class(type(value))} without a field ({missing}), expected every field "
            f"to have a value; set it, or give it a default"
        ) from None
    if type(state) is dict:
        state = _pack_fields(state, mode, depth)
    body = [entry.name, state]
    if extras is not None:
        body.append(_pack([None, *extras[1:]] if mode.canonical else extras, mode, depth))
    return Ext(OBJECT, _TO_BYTES(body))


_PACKERS: Final[dict[type, Callable[[Any, _Mode, int], Any]]] = {
    str: _pack_str,
    int: _pack_int,
    list: _pack_items,
    dict: _pack_dict,
    Decimal: lambda value, _mode, _depth: Ext(DECIMAL, str(value).encode()),
    tuple: lambda value, mode, depth: Ext(TUPLE, _TO_BYTES(_pack_items(value, mode, depth))),
    set: _pack_set(SET),
    frozenset: _pack_set(FROZENSET),
    dt.datetime: _pack_datetime,
    dt.date: lambda value, _mode, _depth: Ext(DATE, _TO_BYTES(value.toordinal())),
    dt.time: _pack_time,
    dt.timedelta: lambda value, _mode, _depth: Ext(
        TIMEDELTA, _TO_BYTES([value.days, value.seconds, value.microseconds])
    ),
    UUID: lambda value, _mode, _depth: Ext(UUID_16, value.bytes),
    msgspec.UnsetType: lambda _value, _mode, _depth: Ext(UNSET, b""),
    ErrorData: _pack_error,
}


def _locate(value: Any, mode: _Mode) -> tuple[str, str]:
    """The path to the object that is refused, and why. Walks again, which only a refusal pays for."""
    path, depth, reason = "value", 0, "found a value that cannot be kept"
    while True:
        reason = _problem(value, mode, depth) or reason
        if depth > DEPTH_MAX:
            break
        depth += 1
        for label, child in _children(value):
            if _problem(child, mode, depth) is not None:
                path, value = path + label, child
                break
        else:
            break
    return path, reason


def _problem(value: Any, mode: _Mode, depth: int) -> str | None:
    try:
        _pack(value, mode, depth)
    except _RefusedError as refused:
        return str(refused)
    except Exception as error:
        return f"found {_describe(value)} that could not be read ({type(error).__name__}), expected plain data"
    return None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    cls = type(value)
    if cls is list or cls is tuple:
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif cls is set or cls is frozenset:
        yield from ((f"{{{_label(item)}}}", item) for item in value)
    elif cls is dict:
        for key, item in value.items():
            yield f" key {_label(key)}", key
            yield f"[{_label(key)}]", item
    else:
        entry = REGISTRY.of_class(cls)
        if entry is not None:
            try:
                state = entry.state(value)
            except AttributeError:
                return
            if type(state) is dict:
                yield from ((f".{field}", item) for field, item in state.items())
            yield from (("(beside its fields)", item) for item in entry.extras(value) or ())


def _label(key: Any) -> str:
    # An int may have more digits than Python will print.
    is_printable = type(key) in SCALARS and (type(key) is not int or _INT64_MIN <= key <= _UINT64_MAX)
    text = repr(key) if is_printable else _describe(key)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _describe(value: object) -> str:
    cls = type(value)
    try:
        name, module = value.__qualname__, value.__module__  # type: ignore[attr-defined]
    except Exception:  # most objects have none, and a property may raise anything
        name = module = None
    if isinstance(name, str):
        return f"the {cls.__name__} {module}.{name}"
    return f"an instance of {describe_class(cls)}"


def _refusal(value: object) -> str:
    cls = type(value)
    if is_value_class(cls):
        return (
            f"found {_describe(value)}, which is not registered, expected a registered class; annotate the "
            f"function's parameter or return value with it, or decorate it with @semel.value({cls.__name__!r})"
        )
    if cls in (bytearray, memoryview):
        return f"found {_describe(value)}, expected bytes; pass bytes(...) of it"
    for base in cls.__mro__[1:]:
        if base in _PACKERS or base in SCALARS:
            return (
                f"found {_describe(value)}, a subclass of {base.__name__} that would come back as a plain one, "
                f"expected {base.__name__} itself; convert it with {base.__name__}(...)"
            )
    return (
        f"found {_describe(value)}, expected None, bool, int, float, str, bytes, Decimal, date or time, UUID, enum, "
        f"tuple, set, list, dict, dataclass, Struct, pydantic model or exception; pass the data it is made of"
    )
