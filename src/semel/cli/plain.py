"""Values as JSON can say them: those of user code, and stored ones whose classes are not here.

A command that reads a journal has not imported the program that wrote it. An instance is then
shown as its fields.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.msgpack import Decoder, Ext

from semel.errors import SerializationError
from semel.kernel import unpack
from semel.kernel.entry import Payload
from semel.kernel.values import ENCODING, decode

_NESTING_MAX: Final = 2 * unpack.DEPTH_MAX
_INT_BITS_MAX: Final = 8_192  # some 2,500 digits


def plain(value: Any, *, level: int = 0) -> Any:
    """`value` as null, bool, number, string, array and object. What has no such form is its repr."""
    if level > _NESTING_MAX:
        return "…"
    match value:
        case int() if type(value) is int and value.bit_length() > _INT_BITS_MAX:
            return hex(value)  # Python refuses to spell it in digits
        case None | bool() | int() | str() if type(value) in (type(None), bool, int, str):
            return value
        case float() if type(value) is float:
            return value if math.isfinite(value) else str(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case dict():
            return {_name(key): plain(content, level=level + 1) for key, content in value.items()}
        case list() | tuple() | set() | frozenset() if not hasattr(value, "_fields"):
            return [plain(item, level=level + 1) for item in value]
    return _built_in(value, level)


def _built_in(value: Any, level: int) -> Any:
    dump = getattr(value, "model_dump", None)
    try:
        if dump is not None:
            return plain(dump(), level=level + 1)
        if hasattr(value, "_asdict"):
            return plain(value._asdict(), level=level + 1)
        made = msgspec.to_builtins(value, builtin_types=(bytes,), str_keys=True, enc_hook=repr)
    except Exception:
        return repr(value)
    return plain(made, level=level + 1)


def _name(key: Any) -> str:
    if isinstance(key, str):
        return key
    found = plain(key)
    return found if isinstance(found, str) else str(found)


def stored(payload: Payload | None) -> Any:
    """A stored value as `plain` would have it, without the classes. Never raises: unreadable bytes are described."""
    if payload is None:
        return None
    if payload.digest:
        return f"({payload.size} bytes, kept in chunks)"
    if payload.key_id or payload.encoding != ENCODING:
        return f"({len(payload.data)} bytes, encoding {payload.encoding!r})"
    try:
        return plain(_decoder(0).decode(payload.data))
    except (msgspec.MsgspecError, SerializationError, ValueError, TypeError, LookupError, RecursionError):
        return f"({len(payload.data)} bytes that cannot be read)"


def _decoder(level: int) -> Decoder[Any]:
    def extension(code: int, data: memoryview) -> Any:
        if level > unpack.DEPTH_MAX:
            raise SerializationError("stored value: it is nested too deeply, expected less")
        inner: Callable[[], Any] = lambda: _decoder(level + 1).decode(data)  # noqa: E731
        match code:
            case unpack.OBJECT:
                _, state, *_ = inner()
                return state
            case unpack.ERROR:
                kind, message, *_ = inner()
                return {"type": kind, "message": message}
            case unpack.TUPLE | unpack.SET | unpack.FROZENSET:
                return inner()
            case unpack.DICT:
                items = iter(inner())
                return {_name(key): content for key, content in zip(items, items, strict=True)}
            case _:
                # A leaf: no class takes part in it.
                return decode(msgspec.msgpack.encode(Ext(code, bytes(data))))

    return Decoder(ext_hook=extension)
