"""semel: ordinary functions and classes that survive crashes, restarts and duplicate requests."""

from semel import errors, sync
from semel.actor import GenServer, call, cast, info
from semel.actor_ref import ActorRef
from semel.context import Context, SyncContext
from semel.deploy import Checked, check
from semel.engine import Engine
from semel.executions import ActorInfo, Execution, ExecutionInfo, Executions, Page
from semel.facet import DurabilityFacet, Facet
from semel.function import EFFECT_KEY, durable_function, step
from semel.history import Event
from semel.kernel.values import value
from semel.retry import Retry
from semel.runtime.services import Limits

__all__ = [
    "EFFECT_KEY",
    "ActorInfo",
    "ActorRef",
    "Checked",
    "Context",
    "DurabilityFacet",
    "Engine",
    "Event",
    "Execution",
    "ExecutionInfo",
    "Executions",
    "Facet",
    "GenServer",
    "Limits",
    "Page",
    "Retry",
    "SyncContext",
    "call",
    "cast",
    "check",
    "durable_function",
    "errors",
    "info",
    "step",
    "sync",
    "value",
]
