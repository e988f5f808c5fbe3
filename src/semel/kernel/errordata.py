"""Exceptions as data: what is kept of one, taken without trusting its methods."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

MESSAGE_MAX: Final = 4096
DATA_MAX: Final = 65_536
STACK_MAX: Final = 10
GROUP_MAX: Final = 3  # exceptions of a group that its message tells of
GROUP_DEPTH_MAX: Final = 4
UNREADABLE: Final = "(the message of this exception cannot be read)"

T = TypeVar("T")


class ErrorData(msgspec.Struct, frozen=True, gc=False):
    """An exception as data. An encoded exception decodes to this; it is never raised or rebuilt from bytes.

    `type` is the qualified class name, never with a module.
    `data` is the encoding of the exception's `args`, or empty when they cannot be kept or
    take more than 64 kB.
    """

    type: str
    message: str
    data: bytes = b""
    stack: tuple[str, ...] = ()


def describe(error: BaseException, encode_args: Callable[[tuple[object, ...]], bytes]) -> ErrorData:
    """`error` as data. Never raises: what cannot be had from the exception is left out."""
    name = _attempt(lambda: _type_name(type(error)), "Exception")
    message = _attempt(lambda: _capped(_message(error, GROUP_DEPTH_MAX)), UNREADABLE)
    # The descriptor of the base class: a subclass may have put anything in its place.
    args: Any = BaseException.__dict__["args"]
    data = _attempt(lambda: encode_args(args.__get__(error)), b"")
    if len(data) > DATA_MAX:
        data = b""
    stack: tuple[str, ...] = _attempt(lambda: _stack(error), ())
    return ErrorData(name, message, data, stack)


def _attempt(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except BaseException:  # whatever a __str__ raises, SystemExit included, is not an outcome
        return otherwise


def _message(error: BaseException, depth: int) -> str:
    """What it says; a group says what those inside say, as nobody will see them otherwise."""
    text = str.__str__(str(error))
    if not depth or not isinstance(error, BaseExceptionGroup):
        return text
    exceptions: Any = BaseExceptionGroup.__dict__["exceptions"]
    inside = [_named(inner, depth - 1) for inner in exceptions.__get__(error)[:GROUP_MAX]]
    return f"{text}: {'; '.join(inside)}"


def _named(error: BaseException, depth: int) -> str:
    return f"{_type_name(type(error))}: {_attempt(lambda: _message(error, depth), UNREADABLE)}"


def _type_name(cls: type) -> str:
    # Never an import path: moving a class to another module must not change what was recorded.
    return str(cls.__qualname__).replace("<locals>.", "")


def _capped(text: str) -> str:
    data = text.encode("utf-8", "replace")  # half a surrogate pair cannot be written
    if len(data) <= MESSAGE_MAX:
        return data.decode()
    kept = text[:MESSAGE_MAX].encode("utf-8", "replace")[: MESSAGE_MAX - len("…".encode())]
    return f"{kept.decode('utf-8', 'ignore')}…"


def _stack(error: BaseException) -> tuple[str, ...]:
    """The innermost frames, outermost first, each with the last two parts of its file's path."""
    lines: deque[str] = deque(maxlen=STACK_MAX)
    traceback: Any = BaseException.__dict__["__traceback__"]
    link = traceback.__get__(error)
    while link is not None:
        code = link.tb_frame.f_code
        file = "/".join(code.co_filename.replace("\\", "/").split("/")[-2:])
        lines.append(f"{file}:{link.tb_lineno} in {code.co_name}")
        link = link.tb_next
    return tuple(lines)
