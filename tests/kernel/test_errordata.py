import dataclasses
from decimal import Decimal

import pytest

from semel.kernel.values import ErrorData, decode, describe_error, encode, fingerprint, value


class MyStr(str):
    __slots__ = ()


@value("test.Part")
@dataclasses.dataclass(frozen=True)
class Part:
    sku: object


class BrokenStr(Exception):
    def __str__(self):
        raise SystemExit(3)


class BrokenArgs(Exception):
    args = property(lambda self: 1 / 0)
    __traceback__ = property(lambda self: 1 / 0)


class Recursive(Exception):
    def __str__(self):
        return str(self)


class Sized(Exception):
    def __str__(self):
        return MyStr("x" * 10_000)


def raised(error, depth=0):
    try:
        if depth:
            raised_inside(error, depth)
        raise error
    except BaseException as caught:
        return caught


def raised_inside(error, depth):
    if depth:
        raised_inside(error, depth - 1)
    raise error


def test_an_exception_is_kept_as_data():
    data = describe_error(raised(ValueError("bad", Decimal("1.5"), Part(1))))
    assert data.type == "ValueError"
    assert data.message == str(ValueError("bad", Decimal("1.5"), Part(1)))
    assert decode(data.data) == ("bad", Decimal("1.5"), Part(1))
    assert data.stack[0].startswith("kernel/test_errordata.py:")
    assert data.stack[0].endswith(" in raised")
    back = decode(encode({"e": raised(KeyError("\ud800"))}))["e"]
    assert type(back) is ErrorData
    assert (back.type, back.message) == ("KeyError", repr("\ud800"))
    assert decode(encode(back)) == back
    assert describe_error(BrokenStr()).type == "BrokenStr"


def test_the_stack_of_an_exception_is_its_ten_innermost_frames():
    stack = describe_error(raised(ValueError(), 30)).stack
    assert len(stack) == 10
    assert all(line.endswith("raised_inside") for line in stack)


@pytest.mark.parametrize(
    "error", [BrokenStr(), BrokenArgs("m"), Recursive(), Sized(), ValueError(object()), OSError(2, "x")]
)
def test_describing_an_exception_never_raises(error):
    data = describe_error(raised(error))
    assert len(data.message.encode("utf-8", "surrogatepass")) <= 4096
    assert type(data.message) is str
    assert decode(encode(error)) == describe_error(error)


def test_an_exception_among_its_own_args_is_described_once():
    error = ValueError()
    error.args = (error, error, [error])
    (first, *_) = decode(describe_error(error).data)
    assert (first.type, first.data) == ("ValueError", b"")
    assert type(decode(encode(error))) is ErrorData


def test_the_place_an_exception_was_raised_does_not_change_its_fingerprint():
    assert fingerprint(raised(ValueError("x"))) == fingerprint(raised(ValueError("x"), 3))
    assert fingerprint(ValueError("x")) != fingerprint(ValueError("y"))


def test_args_that_are_very_large_are_left_out():
    data = describe_error(ValueError("x" * 100_000))
    assert data.data == b""
    assert data.message.endswith("…")
    assert len(data.message.encode()) <= 4096


def test_a_group_says_what_those_inside_say():
    inner = ExceptionGroup("inside", [OSError("b"), BrokenStr(), KeyError("c"), ValueError("too many")])
    found = describe_error(raised(ExceptionGroup("outside", [ValueError("a"), inner])))
    assert found.message == (
        "outside (2 sub-exceptions): ValueError: a; ExceptionGroup: inside (4 sub-exceptions): "
        "OSError: b; BrokenStr: (the message of this exception cannot be read); KeyError: 'c'"
    )


def test_a_group_of_many_levels_is_described_to_some_depth():
    error = ValueError("deep")
    for _ in range(500):
        error = ExceptionGroup("g", [error])
    assert describe_error(error).message.count("ExceptionGroup: ") == 4
