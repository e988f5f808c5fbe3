"""What the owner of a file does for those who ask through its socket: the CLI's writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from semel.errors import ValidationError
from semel.function import function_spec
from semel.kernel import values
from semel.runtime.worker import versions_at_hand

if TYPE_CHECKING:
    from semel.engine import Engine


async def serve(engine: Engine, method: str, arguments: dict[str, Any]) -> Any:
    """Answer one request. Raises SemelError; ValidationError for a method there is not.

    run: {function, arguments (encoded tuple), key} → encoded outcome.
    stop, resume, unpin: {id, function, reason} → the execution's description as a mapping of bytes and text.
    versions: {functions (encoded names)} → encoded: those of them that are here, and their versions if pinned.
    ping: {} → the number of executions and actors that run here.
    """
    match method:
        case "run":
            spec = function_spec(_text(arguments, "function"))
            given = values.decode(_needed(arguments, "arguments"))
            if not isinstance(given, tuple | list):
                raise ValidationError(f"request 'run': its arguments are {type(given).__name__}, expected a tuple")
            execution = await engine.start_spec(spec, tuple(given), key=arguments.get("key"))
            return values.encode(await execution.result())
        case "versions":
            return values.encode(versions_at_hand(list(values.decode(_needed(arguments, "functions")))))
        case "stop" | "resume" | "unpin":
            act = getattr(engine.executions, method)
            info = await act(
                _text(arguments, "id"), function=arguments.get("function"), reason=str(arguments.get("reason") or "")
            )
            return msgspec.msgpack.encode(msgspec.structs.replace(info, result=None))
        case "ping":
            return {"running": engine.running_count}
        case _:
            raise ValidationError(f"request {method!r}: expected run, stop, resume, unpin, versions or ping")


def _needed(arguments: dict[str, Any], name: str) -> Any:
    try:
        return arguments[name]
    except KeyError:
        raise ValidationError(f"request: it has no {name!r}, expected one; use the semel of this version") from None


def _text(arguments: dict[str, Any], name: str) -> str:
    found = _needed(arguments, name)
    if not isinstance(found, str):
        raise ValidationError(f"request: its {name!r} is {type(found).__name__}, expected text")
    return found
