"""User code by name and its arguments from JSON: what fits is passed, what does not is refused before anything runs."""

import sys
from dataclasses import dataclass
from decimal import Decimal

import pytest

from semel.cli.code import arguments_from_json, find_function, import_user_module, parse_json
from semel.errors import SemelError, UnknownHandlerError, ValidationError
from semel.function import FunctionSpec, durable_function


@dataclass
class ArgumentOrder:
    id: str
    amount: Decimal


@durable_function(name="cli-one")
async def one(ctx, order: ArgumentOrder) -> None: ...


@durable_function(name="cli-two")
async def two(ctx, order: ArgumentOrder, note: str = "none", *, ignored: int = 0) -> None: ...


@durable_function(name="cli-none")
async def none(ctx) -> None: ...


@durable_function(name="cli-many")
def many(ctx, first: int, *rest: int) -> None: ...


@durable_function(name="cli-untyped")
def untyped(ctx, anything, other: "NoSuchType"): ...  # noqa: F821


def arguments(function, data, **options):
    spec = function.__semel_function__
    assert isinstance(spec, FunctionSpec)
    return arguments_from_json(spec, data, **options)


def test_the_only_argument_is_the_document():
    assert arguments(one, {"id": "a", "amount": "1.50"}) == (ArgumentOrder("a", Decimal("1.50")),)


def test_several_arguments_are_an_array_or_an_object_by_name():
    order = {"id": "a", "amount": "1"}
    made = ArgumentOrder("a", Decimal(1))
    assert arguments(two, [order]) == (made,)
    assert arguments(two, [order, "x"]) == (made, "x")
    assert arguments(two, {"order": order}) == (made,)
    assert arguments(two, {"note": "x", "order": order}) == (made, "x")


def test_no_arguments_are_no_document():
    assert arguments(none, None, given=False) == ()
    with pytest.raises(ValidationError, match="takes no arguments"):
        arguments(none, None)


def test_the_rest_of_an_array_goes_to_the_rest_of_the_arguments():
    assert arguments(many, [1]) == (1,)
    assert arguments(many, [1, 2, 3]) == (1, 2, 3)


def test_what_has_no_usable_annotation_passes_as_it_is():
    assert arguments(untyped, [{"a": [1]}, None]) == ({"a": [1]}, None)


@pytest.mark.parametrize(
    ("function", "data", "expected"),
    [
        (one, {"id": 1, "amount": "1"}, "argument 'order': value at $.id"),
        (one, {"id": "a"}, "amount"),
        (one, {"id": "a", "amount": "x"}, "value at $.amount"),
        (one, [], "argument 'order'"),
        (one, "text", "argument 'order'"),
        (two, [], "found 0 arguments"),
        (two, [1, 2, 3], "found 3 arguments"),
        (two, {"note": "x"}, "found no 'order'"),
        (two, {"order": 1, "extra": 2}, "found unknown 'extra'"),
        (two, 7, "found 7, expected an array of its arguments"),
        (many, [], "found 0 arguments"),
        (many, [1, "x"], "argument 'rest'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(function, data, expected):
    with pytest.raises(ValidationError) as refused:
        arguments(function, data)
    assert expected in str(refused.value)


def test_a_missing_document_is_refused_where_one_is_needed():
    with pytest.raises(ValidationError, match="found no 'order'"):
        arguments(one, None, given=False)


@pytest.mark.parametrize(
    "text",
    ["", "{", "{'a': 1}", "[1,]", "NaN", "[Infinity]", '{"a": 1, "a": 2}', "1 2", "[" * 100_000, "\ufeff1", "9" * 5000],
)
def test_json_that_does_not_parse_is_refused(text):
    with pytest.raises(ValidationError, match=r"^JSON: "):
        parse_json(text)


@pytest.mark.parametrize("target", ["", ":", "a", "a:", ":b", "a b:c", "a:b()", "..a:b", "a:b:c", "os.path:"])
def test_a_target_of_another_form_is_refused(target):
    with pytest.raises(ValidationError, match="expected module:function"):
        find_function(target)


def test_a_function_is_found_by_module_and_name():
    assert find_function(f"{__name__}:one").name == "cli-one"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("no_such_module_of_ours:f", "was not found from"),
        ("os.no_such_module_of_ours:f", "was not found from"),
        (f"{__name__}:nothing", "expected one of: cli-many, cli-none"),
        (f"{__name__}:arguments", "it is not durable"),
        ("os:getcwd", "it is not durable"),
    ],
)
def test_what_is_not_there_or_not_durable_is_unknown(target, expected):
    with pytest.raises(UnknownHandlerError) as unknown:
        find_function(target)
    assert expected in str(unknown.value)


@pytest.mark.parametrize("body", ["1 / 0", "import no_such_module_of_ours", "def f(:"])
def test_a_module_that_fails_itself_is_told_apart_from_one_that_is_not_there(tmp_path, monkeypatch, body):
    (tmp_path / "broken_module_of_ours.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SemelError, match="importing it raised") as broken:
        import_user_module("broken_module_of_ours")
    assert not isinstance(broken.value, UnknownHandlerError)
