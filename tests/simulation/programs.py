"""Random async programs: small trees of asyncio's constructs and of operations, the same for the same number.

A program always comes to an end, whatever completes first: who waits for an event, a place or an
item is in one TaskGroup with whoever brings it. How long a step takes is drawn for each order of a
program, so that one program has many orders of completion.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from msgspec import Struct

# What a leaf does, and how often it is chosen.
LEAVES: Final = {
    "step": 7,
    "sync step": 2,
    "instant step": 2,
    "failing step": 3,
    "retried step": 2,
    "once step": 2,
    "abandoned step": 2,
    "keyed step": 2,
    "wait": 3,
    "sleep": 3,
    "yield": 2,
    "create_callback": 2,
    "wait_for_callback": 2,
    "invoke": 2,
    "wait_for_condition": 2,
}
# How many parts a construct takes.
CONSTRUCTS: Final = {
    "gather": (2, 3),
    "gather exceptions": (2, 3),
    "task group": (2, 3),
    "create_task": (2, 3),
    "as_completed": (2, 3),
    "first completed": (2, 3),
    "first exception": (2, 3),
    "all completed": (2, 3),
    "timeout": (1, 1),
    "wait_for": (1, 1),
    "shield": (1, 1),
    "cancel": (2, 2),
    "catch cancel": (2, 2),
    "finally": (2, 2),
    "except": (2, 2),
    "queue": (2, 3),
    "lock": (2, 3),
    "semaphore": (3, 3),
    "event": (2, 3),
    "condition": (2, 3),
    "barrier": (2, 3),
    "async generator": (2, 3),
    "generator left": (2, 3),
    "helper": (2, 3),
    "child context": (1, 2),
    "with_retry": (1, 2),
    "map": (2, 3),
    "flat map": (2, 3),
    "parallel": (2, 3),
    "background": (1, 1),
    "callback": (2, 2),
    "call_later": (1, 1),
}
WANTED: Final = 7  # constructs that a program is certain to have; the others come by chance
DEPTH_MAX: Final = 5
LEAVES_MAX: Final = 3
STEP_MS: Final = range(10, 400, 10)  # whole tens, so that two things may come due at once
LIMIT_MS: Final = range(20, 500, 10)


class Node(Struct, frozen=True):
    """A part of a program. `id` is its place in it, `ms` and `pick` are what some kinds need beside their parts."""

    kind: str
    id: int
    parts: tuple[Node, ...] = ()
    ms: int = 0
    pick: int = 0

    def walk(self) -> Iterator[Node]:
        """This part and every part inside."""
        yield self
        for part in self.parts:
            yield from part.walk()


class _Grower:
    def __init__(self, number: int) -> None:
        self.luck = random.Random(f"program {number}")
        names = list(CONSTRUCTS)
        # Each construct in turn, so that a hundred programs have all of them often enough.
        self.wanted = [names[(number * WANTED + place) % len(names)] for place in range(WANTED)]
        self.luck.shuffle(self.wanted)
        self.nodes = 0
        self.leaves = 0

    def program(self) -> Node:
        parts = []
        while self.wanted or not parts:
            parts.append(self._part(1))
        kind = self.luck.choice(["in turn", "in turn", "gather exceptions"])
        return self._node(kind, tuple(parts))

    def _node(self, kind: str, parts: tuple[Node, ...] = ()) -> Node:
        self.nodes += 1
        luck = self.luck
        return Node(kind, self.nodes, parts, luck.choice(LIMIT_MS), luck.randrange(6))

    def _part(self, depth: int) -> Node:
        luck = self.luck
        if depth >= DEPTH_MAX:
            return self._leaf()
        if self.wanted and (depth == 1 or luck.random() < 0.8):
            return self._construct(self.wanted.pop(), depth)
        if self.leaves < LEAVES_MAX and luck.random() < 0.15:
            return self._construct(luck.choice(list(CONSTRUCTS)), depth)
        return self._leaf()

    def _construct(self, kind: str, depth: int) -> Node:
        least, most = CONSTRUCTS[kind]
        count = least if self.leaves >= LEAVES_MAX or self.luck.random() < 0.5 else self.luck.randint(least, most)
        return self._node(kind, tuple(self._part(depth + 1) for _ in range(count)))

    def _leaf(self) -> Node:
        self.leaves += 1
        (kind,) = self.luck.choices(list(LEAVES), weights=list(LEAVES.values()))
        return self._node(kind)


@lru_cache(maxsize=4096)
def program(number: int) -> Node:
    """The program of that number."""
    return _Grower(number).program()


@lru_cache(maxsize=65_536)
def step_ms(number: int, order: int, node: int) -> int:
    """How long a step of a program takes in one of its orders."""
    return random.Random(f"{number} {order} {node}").choice(STEP_MS)
