"""World: your durable functions and actors, run once for every moment at which they can be killed.

    from semel.testing import explore

    async def orders(client):
        return await client.run(process_order, Order("o-1", 250), key="o-1")

    report = explore(orders)
    assert not report.found, report.found[0]

Time is virtual, so that a wait of a day costs nothing. Step bodies run for real, again in each
run: put what they do to the outside behind a fake, or count it with `effect`. `def` bodies and
handlers run in their threads, one at a time.
"""

from semel.testing.audit import Audit, Violation
from semel.testing.client import Client
from semel.testing.explore import ALL, Found, Report, explore, run_once
from semel.testing.faults import Arrival, Close, Crash, Fault, Jump, Plan, Takeover
from semel.testing.trail import Model
from semel.testing.virtual_loop import VirtualLoop
from semel.testing.world import Message, Run, Shape, World, answer, effect

__all__ = [
    "ALL",
    "Arrival",
    "Audit",
    "Client",
    "Close",
    "Crash",
    "Fault",
    "Found",
    "Jump",
    "Message",
    "Model",
    "Plan",
    "Report",
    "Run",
    "Shape",
    "Takeover",
    "Violation",
    "VirtualLoop",
    "World",
    "answer",
    "effect",
    "explore",
    "run_once",
]
