"""semel: ordinary functions and classes that survive crashes, restarts and duplicate requests."""

from semel import errors, sync
from semel.actor import GenServer, call, cast, info
from semel.actor_ref import ActorRef
from semel.batch import BatchItem, BatchResult, Completion, Progress
from semel.callback import Callback, SyncCallback
from semel.callbacks import Callbacks
from semel.context import Context
from semel.deploy import Checked, check
from semel.engine import Engine
from semel.executions import ActorInfo, Execution, Executions
from semel.facet import DurabilityFacet, Facet
from semel.function import EFFECT_KEY, durable_function, plain_function, step
from semel.history import Event
from semel.kernel.values import value
from semel.listing import ExecutionInfo, Page
from semel.poll import Poll
from semel.retry import Retry
from semel.runtime.services import Limits
from semel.sync_context import SyncContext

__all__ = [
    "EFFECT_KEY",
    "ActorInfo",
    "ActorRef",
    "BatchItem",
    "BatchResult",
    "Callback",
    "Callbacks",
    "Checked",
    "Completion",
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
    "Poll",
    "Progress",
    "Retry",
    "SyncCallback",
    "SyncContext",
    "call",
    "cast",
    "check",
    "durable_function",
    "errors",
    "info",
    "plain_function",
    "step",
    "sync",
    "value",
]
