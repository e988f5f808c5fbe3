"""What the owner of a file does for those who ask through its socket: the CLI's writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from semel.errors import ValidationError
from semel.function import function_spec
from semel.kernel import values
from semel.listing import ExecutionInfo
from semel.runtime.worker import versions_at_hand

if TYPE_CHECKING:
    from semel.engine import Engine


METHODS = "run, callback, stop, pause, resume, unpin, delete, forget_key, versions, ping"


async def serve(engine: Engine, method: str, arguments: dict[str, Any]) -> Any:
    """Answer one request. Raises SemelError; ValidationError for a method there is not.

    run: {function, arguments (encoded tuple), key, timeout_ms} → encoded outcome.
    stop, pause, resume, unpin, delete: {id, function, reason} → the execution's description as a mapping of bytes
    and text; a pause has `timeout_paused`, a stop `children`, a delete no reason.
    forget_key: {name, function} → nothing.
    versions: {functions (encoded names)} → encoded: those of them that are here, and their versions if pinned.
    callback: {id, action, value (encoded), error, error_type} → nothing; it is settled, or heard of.
    ping: {} → the number of executions and actors that run here.
    """
    match method:
        case "run":
            spec = function_spec(_text(arguments, "function"))
            given = values.decode(_needed(arguments, "arguments"))
            if not isinstance(given, tuple | list):
                raise ValidationError(f"request 'run': its arguments are {type(given).__name__}, expected a tuple")
            options = {"key": arguments.get("key"), "timeout_ms": arguments.get("timeout_ms")}
            execution = await engine.start_spec(spec, tuple(given), **options)
            return values.encode(await execution.result())
        case "versions":
            return values.encode(versions_at_hand(list(values.decode(_needed(arguments, "functions")))))
        case "stop" | "pause" | "resume" | "unpin" | "delete":
            info = await _control(engine, method, arguments)
            return msgspec.msgpack.encode(msgspec.structs.replace(info, result=None))
        case "forget_key":
            await engine.executions.forget_key(_text(arguments, "name"), function=_text(arguments, "function"))
            return None
        case "callback":
            await _settle(engine, arguments)
            return None
        case "ping":
            return {"running": engine.running_count}
        case _:
            raise ValidationError(f"request {method!r}: expected one of {METHODS}")


async def _control(engine: Engine, method: str, arguments: dict[str, Any]) -> ExecutionInfo:
    which, function = _text(arguments, "id"), arguments.get("function")
    reason, executions = str(arguments.get("reason") or ""), engine.executions
    match method:
        case "stop":
            children = arguments.get("children") is True
            return await executions.stop(which, function=function, reason=reason, children=children)
        case "pause":
            timeout_paused = arguments.get("timeout_paused") is not False
            return await executions.pause(which, function=function, reason=reason, timeout_paused=timeout_paused)
        case "resume":
            return await executions.resume(which, function=function, reason=reason)
        case "unpin":
            return await executions.unpin(which, function=function, reason=reason)
        case _:
            return await executions.delete(which, function=function)


async def _settle(engine: Engine, arguments: dict[str, Any]) -> None:
    callbacks, which = engine.callbacks, _text(arguments, "id")
    match _text(arguments, "action"):
        case "succeed":
            await callbacks.succeed(which, values.decode(_needed(arguments, "value")))
        case "fail":
            await callbacks.fail(which, _text(arguments, "error"), error_type=arguments.get("error_type"))
        case "heartbeat":
            await callbacks.heartbeat(which)
        case action:
            raise ValidationError(f"request 'callback': found {action!r}, expected succeed, fail or heartbeat")


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
