"""User code by name: `module:function`, and its arguments from JSON."""

from __future__ import annotations

import inspect
import json
import sys
import typing
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from semel.errors import SemelError, UnknownHandlerError, ValidationError
from semel.function import REGISTRY, FunctionSpec, function_spec
from semel.kernel.values import convert

Parameter = inspect.Parameter
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def import_user_module(name: str) -> ModuleType:
    """Import a module as `python -m` would find it. Raises UnknownHandlerError, or SemelError if it fails itself."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise UnknownHandlerError(
                f"module {name!r}: it was not found from {here!r}, expected the module that defines the function; "
                f"change the directory or set PYTHONPATH"
            ) from None
        raise _broken(name, error) from error
    except SemelError:
        raise
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> SemelError:
    return SemelError(
        f"module {name!r}: importing it raised {type(error).__name__}: {error}; nothing was started; see to the module"
    )


def find_function(target: str) -> FunctionSpec:
    """The durable function that `module:function` names.

    Raises ValidationError for another form, UnknownHandlerError if there is no such thing or it is not durable.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise ValidationError(f"function {target!r}: expected module:function, such as shop.orders:process_order")
    module = import_user_module(module_name)
    try:
        found = reduce(getattr, name.split("."), typing.cast("Any", module))
    except AttributeError:
        known = sorted(spec.name for spec in REGISTRY.functions.values() if spec.function.__module__ == module_name)
        raise UnknownHandlerError(
            f"function {target!r}: module {module_name!r} has no {name!r}, expected one of: "
            f"{', '.join(known) or 'none, it defines no durable function'}; check the name"
        ) from None
    return function_spec(found)


def parse_json(text: str | bytes) -> Any:
    """The value of one JSON document. Raises ValidationError; stricter than `json` where it would guess."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValidationError(
            f"JSON: {error.msg} at line {error.lineno}, column {error.colno}, expected one JSON document; "
            f"quote it for the shell, as in '{{\"id\": 1}}', or pass - and send it on standard input"
        ) from None
    except RecursionError:
        raise ValidationError("JSON: it is nested too deeply, expected less; flatten it") from None
    except ValueError as error:
        raise ValidationError(f"JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValidationError(f"JSON: found {name}, expected a number of JSON; send a string or null instead")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValidationError(f"JSON: found the name {twice!r} twice in one object, expected it once; remove one")
    return found


def arguments_from_json(spec: FunctionSpec, data: Any, *, given: bool = True) -> tuple[Any, ...]:
    """The arguments after the context, as the annotations ask for them. Raises ValidationError.

    A function with one argument takes the document as it is; one with several takes an array, or an
    object by name; one with none takes no document.
    """
    parameters, hints = _parameters(spec.function)
    described = f"function {spec.name!r}"
    if not given:
        data = {}
    elif not parameters:
        raise ValidationError(f"{described}: found JSON, expected none, because it takes no arguments; leave it out")
    elif len(parameters) == 1 and parameters[0].kind is not Parameter.VAR_POSITIONAL:
        data = [data]
    match data:
        case list():
            values = _by_place(described, parameters, data)
        case dict():
            values = _by_name(described, parameters, data)
        case _:
            raise ValidationError(
                f"{described}: found {data!r:.60}, expected an array of its arguments or an object with them by name: "
                f"{_spelled(parameters)}"
            )
    return tuple(_converted(described, parameter, value, hints) for parameter, value in values)


def _parameters(function: Callable[..., Any]) -> tuple[list[Parameter], dict[str, Any]]:
    """What the function takes after its context."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:
        # An annotation may name anything; without it the value passes as it is.
        hints = {}
    found = list(inspect.signature(function).parameters.values())[1:]
    return [parameter for parameter in found if parameter.kind in (*_POSITIONAL, Parameter.VAR_POSITIONAL)], hints


def _by_place(described: str, parameters: list[Parameter], data: list[Any]) -> list[tuple[Parameter, Any]]:
    required = [parameter for parameter in parameters if _is_required(parameter)]
    rest = parameters[-1] if parameters and parameters[-1].kind is Parameter.VAR_POSITIONAL else None
    named = parameters[:-1] if rest else parameters
    if len(data) < len(required) or (rest is None and len(data) > len(named)):
        raise ValidationError(
            f"{described}: found {len(data)} arguments, expected {_spelled(parameters)}; send an array of that length"
        )
    pairs = list(zip(named, data, strict=False))
    if rest is not None:
        pairs += [(rest, value) for value in data[len(named) :]]
    return pairs


def _by_name(described: str, parameters: list[Parameter], data: dict[str, Any]) -> list[tuple[Parameter, Any]]:
    known = {parameter.name for parameter in parameters if parameter.kind in _POSITIONAL}
    unknown = [name for name in data if name not in known]
    missing = [parameter.name for parameter in parameters if _is_required(parameter) and parameter.name not in data]
    if unknown or missing:
        raise ValidationError(
            f"{described}: found {'unknown ' + repr(unknown[0]) if unknown else 'no ' + repr(missing[0])}, "
            f"expected {_spelled(parameters)}; send these names"
        )
    pairs = []
    for parameter in parameters:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            continue
        if parameter.name in data:
            pairs.append((parameter, data[parameter.name]))
        elif len(pairs) < len(data):
            pairs.append((parameter, parameter.default))
    return pairs


def _is_required(parameter: Parameter) -> bool:
    return parameter.kind in _POSITIONAL and parameter.default is Parameter.empty


def _spelled(parameters: list[Parameter]) -> str:
    return "(" + ", ".join(str(parameter) for parameter in parameters) + ")"


def _converted(described: str, parameter: Parameter, value: Any, hints: dict[str, Any]) -> Any:
    if value is parameter.default:
        return value
    try:
        return convert(value, hints.get(parameter.name, Any))
    except ValidationError as error:
        raise ValidationError(f"{described}, argument {parameter.name!r}: {error}") from None
