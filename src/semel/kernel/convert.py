"""Plain data (parsed JSON) into what an annotation asks for.

Strict: a string is not a number and a number is not a string. Types that JSON has no form
for are read from their text: Decimal, datetime, UUID, bytes (base64), enum by value.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import msgspec

from semel.errors import ValidationError

_ANYTHING: Final = (Any, object, inspect.Parameter.empty, inspect.Signature.empty)
_EXPECTED_GOT: Final = re.compile(r"Expected (?P<expected>.+), got (?P<found>.+)", re.DOTALL)
_REPR_MAX: Final = 120


def convert(data: object, hint: Any) -> Any:
    """`data` as the type `hint`. Raises ValidationError with the path, what was found and what was expected.

    A hint of Any, object or none at all returns `data` as it is.
    """
    if any(hint is anything for anything in _ANYTHING):
        return data
    try:
        return msgspec.convert(data, hint, strict=True, str_keys=True, dec_hook=_convert_custom)
    except msgspec.ValidationError as error:
        raise ValidationError(_explain(str(error), data, hint)) from None
    except RecursionError:
        raise ValidationError("value at $: found data nested too deeply, expected less; flatten it") from None
    except TypeError as error:
        raise ValidationError(
            f"annotation {describe_hint(hint)}: found one that JSON cannot be read into ({error}), expected a plain "
            f"type, dataclass, Struct or pydantic model; change the annotation"
        ) from None
    except Exception as error:
        # A __post_init__ ran; msgspec reports only ValueError and TypeError of it as a refusal.
        raise ValidationError(
            f"value at $: found data that {describe_hint(hint)} does not accept ({type(error).__name__}: {error}), "
            f"expected data that it accepts; pass other data"
        ) from error


def describe_hint(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)


def _explain(problem: str, data: object, hint: Any) -> str:
    text, _, path = problem.rpartition(" - at ")
    text, path = (text, path.strip("`")) if text else (problem, "$")
    match = _EXPECTED_GOT.fullmatch(text)
    found = _look_up(data, path)
    if match:
        text = f"found {found or match['found']}, expected {match['expected']}"
    else:
        text = f"found {found or 'other data'}, expected {describe_hint(hint)}: {text}"
    return f"value at {path}: {text}; pass data that fits {describe_hint(hint)}"


def _look_up(data: object, path: str) -> str:
    """The value that `path` leads to, shortened; nothing when the path goes through a key that is not named."""
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d*|\.\.\.)\]", path.removeprefix("$")):
        try:
            data = data[name] if name else data[int(index)]  # type: ignore[index]
        except (LookupError, TypeError, ValueError):
            return ""
    try:
        text = repr(data)
    except Exception:
        return ""
    return text if len(text) <= _REPR_MAX else f"{text[:_REPR_MAX]}…"


def _convert_custom(hint: Any, data: Any) -> Any:
    if isinstance(data, hint):
        return data
    validate = getattr(hint, "model_validate", None)
    if validate is None:
        # A TypeError or ValueError from here is reported by msgspec with the path it came from.
        raise ValueError(f"Expected `{describe_hint(hint)}`, got `{type(data).__name__}`")
    try:
        return validate(data)
    except ValueError as error:
        raise ValueError(_first_problem(error)) from None


def _first_problem(error: ValueError) -> str:
    problems = getattr(error, "errors", None)
    if problems is None:
        return str(error)
    first = problems(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or "the model"
    return f"{where}: {first['msg']} (found {first['input']!r:.{_REPR_MAX}})"
