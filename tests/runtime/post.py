"""Who is given the ids of callbacks in these tests, and how a request of theirs is answered."""

from __future__ import annotations

from typing import Any

from semel.errors import (
    CallbackClosedError,
    LimitExceededError,
    NotFoundError,
    SerializationError,
    ValidationError,
)
from tests.runtime.places import until


class Post:
    """Where submitters leave the ids that they are given."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def take(self, callback_id: str, *_: Any) -> None:
        self.ids.append(callback_id)

    def take_in_a_thread(self, callback_id: str, *_: Any) -> None:
        self.ids.append(callback_id)

    async def first(self) -> str:
        await until(lambda: self.ids)
        return self.ids[0]


async def told(work: Any) -> str:
    """What a request was refused with, or "" if it was not."""
    try:
        await work
    except (ValidationError, NotFoundError, CallbackClosedError, LimitExceededError, SerializationError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
