"""Bytes back to values: the extension codes of the encoding, and what each one means.

Nothing here trusts the bytes: how deep they nest is bounded, and whatever else is wrong
with them surfaces as some exception, which `codec.decode` reports as one kind.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Decoder

from semel.errors import SerializationError
from semel.kernel.errordata import ErrorData
from semel.kernel.registry import REGISTRY

ENCODING: Final = "semel/1"
DEPTH_MAX: Final = 100

# Extension codes are part of the format: never renumber, never reuse.
STR, INT, DECIMAL, TUPLE, SET, FROZENSET, DICT, DATETIME = 1, 2, 3, 4, 5, 6, 7, 8
DATE, TIME, TIMEDELTA, UUID_16, UNSET, OBJECT, ERROR = 9, 10, 11, 12, 13, 14, 15

TOO_DEEP: Final = f"found more than {DEPTH_MAX} levels of nesting, expected fewer; flatten it, or break the cycle"

# A registered object is two plain levels (name and fields) in one extension.
_PLAIN_DEPTH_MAX: Final = DEPTH_MAX + 2
_PLAIN_NESTING: Final = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])  # headers of arrays and maps


def unpack(data: bytes | memoryview, level: int) -> Any:
    """The value of one msgpack document, `level` extensions deep."""
    value = _DECODERS[level].decode(data)
    if len(data) > _PLAIN_DEPTH_MAX:
        _check_depth(bytes(data), value)
    return value


def _check_depth(data: bytes, value: Any) -> None:
    # Counting header bytes is far cheaper than a walk, and rules most values out.
    if len(data) - len(data.translate(None, _PLAIN_NESTING)) <= _PLAIN_DEPTH_MAX:
        return
    nodes = [value]
    for _ in range(_PLAIN_DEPTH_MAX + 1):
        nodes = [
            child
            for node in nodes
            if type(node) is list or type(node) is dict
            for child in (node.values() if type(node) is dict else node)
            if type(child) is list or type(child) is dict
        ]
        if not nodes:
            return
    raise SerializationError(f"stored value: {TOO_DEEP}")


def _unpack_unique(data: memoryview, level: int, kind: Callable[[list[Any]], Any]) -> Any:
    items = unpack(data, level)
    made = kind(items)
    if type(items) is not list or len(made) != len(items):
        raise SerializationError("stored value: found the same element twice in a set, expected each once")
    return made


def _unpack_dict(data: memoryview, level: int) -> dict[Any, Any]:
    items = iter(unpack(data, level))
    pairs = list(zip(items, items, strict=True))
    made = dict(pairs)
    if len(made) != len(pairs):
        raise SerializationError("stored value: found the same key twice in a dict, expected each once")
    return made


def _unpack_zone(zone: Any) -> dt.tzinfo | None:
    if zone is None:
        return None
    if zone == 0:
        return dt.UTC
    if type(zone) is str:
        return ZoneInfo(zone)
    days, seconds, microseconds, *name = zone
    return dt.timezone(dt.timedelta(days, seconds, microseconds), *name)


def _unpack_datetime(data: memoryview, level: int) -> dt.datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = unpack(data, level)
    return dt.datetime(year, month, day, hour, minute, second, microsecond, _unpack_zone(zone), fold=fold)


def _unpack_time(data: memoryview, level: int) -> dt.time:
    hour, minute, second, microsecond, fold, zone = unpack(data, level)
    return dt.time(hour, minute, second, microsecond, _unpack_zone(zone), fold=fold)


def _unpack_object(data: memoryview, level: int) -> Any:
    name, state, *extras = unpack(data, level)
    entry = REGISTRY.of_name(name)
    if entry is None:
        raise SerializationError(
            f"stored value: found the class {name!r}, expected a registered name; import the module that defines it, "
            f"or put @semel.value({name!r}) on the class that took its place"
        )
    return entry.restore(state, extras[0] if extras else None)


def _unpack_error(data: memoryview, level: int) -> ErrorData:
    name, message, args, stack = unpack(data, level)
    fields = {"type": name, "message": message, "data": args, "stack": stack}
    return msgspec.convert(fields, ErrorData, builtin_types=(bytes,))


_UNPACKERS: Final[dict[int, Callable[[memoryview, int], Any]]] = {
    STR: lambda data, _level: bytes(data).decode("utf-8", "surrogatepass"),
    INT: lambda data, _level: int.from_bytes(data, "big", signed=True),
    DECIMAL: lambda data, _level: Decimal(str(data, "ascii")),
    TUPLE: lambda data, level: tuple(unpack(data, level)),
    SET: lambda data, level: _unpack_unique(data, level, set),
    FROZENSET: lambda data, level: _unpack_unique(data, level, frozenset),
    DICT: _unpack_dict,
    DATETIME: _unpack_datetime,
    DATE: lambda data, level: dt.date.fromordinal(unpack(data, level)),
    TIME: _unpack_time,
    TIMEDELTA: lambda data, level: dt.timedelta(*unpack(data, level)),
    UUID_16: lambda data, _level: UUID(bytes=bytes(data)),
    UNSET: lambda _data, _level: msgspec.UNSET,
    OBJECT: _unpack_object,
    ERROR: _unpack_error,
}


def _decoder(level: int) -> Decoder[Any]:
    """A decoder for documents `level` extensions deep. Each hands what is inside to the next: no recursion unseen."""

    def unpack_extension(code: int, data: memoryview) -> Any:
        if level > DEPTH_MAX:
            raise SerializationError(f"stored value: {TOO_DEEP}")
        unpacker = _UNPACKERS.get(code)
        if unpacker is None:
            raise SerializationError(
                f"stored value: found the extension code {code}, expected one of {ENCODING}; "
                f"the bytes were changed, or a newer version wrote them"
            )
        return unpacker(data, level + 1)

    return Decoder(ext_hook=unpack_extension)


_DECODERS: Final = tuple(_decoder(level) for level in range(DEPTH_MAX + 2))
