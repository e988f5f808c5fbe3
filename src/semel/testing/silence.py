"""Letting go of dead processes without a word: they are thousands, and each would complain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """No logs: a dead engine says so, and there are thousands of them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


async def unwind() -> None:
    """Cancel whatever a dead process left, until nothing is left."""
    for _ in range(100):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1)
