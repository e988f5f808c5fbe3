"""An engine in a process of its own: opened on a file, it says so and does as it is told until it is killed.

python -m tests.runtime.child_engine FILE open      opens, prints "open", waits
python -m tests.runtime.child_engine FILE step      starts an at-most-once step, prints "begun" from its body, waits
python -m tests.runtime.child_engine FILE sync      blocks in a sync engine's run, prints "begun"; Ctrl-C closes it
"""

from __future__ import annotations

import asyncio
import sys
import time

import semel
from semel import Context, durable_function


async def hang() -> str:
    say("begun")
    await asyncio.sleep(60)
    return "hung"


@durable_function(name="child-engine")
async def at_most_once(ctx: Context) -> str:
    try:
        return await ctx.step(hang, effect="at_most_once")
    except semel.errors.StepInterruptedError:
        return "interrupted"


@durable_function(name="child-engine-waits")
async def waits(ctx: Context) -> str:
    say("begun")
    await ctx.wait(seconds=60)
    return "waited"


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


async def main(url: str, mode: str) -> None:
    async with semel.Engine(url) as engine:
        say("open")
        if mode == "step":
            await engine.run(at_most_once, key="k")
        await asyncio.sleep(60)


def main_sync(url: str) -> None:
    with semel.sync.Engine(url) as engine:
        started = time.monotonic()
        try:
            engine.run(waits, key="k")
        except KeyboardInterrupt:
            say("interrupted")
            info = engine.executions.get("k", function="child-engine-waits")
            say(info.status)
    say(f"closed {time.monotonic() - started < 30}")


if __name__ == "__main__":
    if sys.argv[2] == "sync":
        main_sync(f"sqlite:///{sys.argv[1]}")
    else:
        asyncio.run(main(f"sqlite:///{sys.argv[1]}", sys.argv[2]))
