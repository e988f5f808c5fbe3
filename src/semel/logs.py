"""The logger of durable code: silent while the journal still answers, so that each line is logged once."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Protocol


class Replaying(Protocol):
    """What the logger asks its seam."""

    def is_replaying(self) -> bool: ...
    @property
    def execution_id(self) -> str: ...


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs to "semel.function" with the execution's id in `extra`, and not while replaying."""

    def __init__(self, seam: Replaying) -> None:
        super().__init__(logging.getLogger("semel.function"), {"execution_id": seam.execution_id})
        self._seam = seam

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's own name
        return not self._seam.is_replaying() and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the execution's id to whatever `extra` the caller gives."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
