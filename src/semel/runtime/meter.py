"""What one execution has recorded, beside what `Limits` lets it record.

A limit is refused where an operation is asked for, or where its outcome would be recorded: there the
body can catch it, and a replay meets the same refusal, because it was recorded or because nothing could
be recorded after it. At 80 % of each limit a run says so, once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from semel.errors import LimitExceededError
from semel.kernel import values
from semel.kernel.entry import Kind, Payload, Status
from semel.kernel.size import error_size, outcome_size, size_of
from semel.runtime.slot import Outcome

if TYPE_CHECKING:
    from semel.runtime.services import Limits

logger = logging.getLogger("semel")
WARN_PERCENT: Final = 80
NEVER: Final = 1 << 62
EXPECTED: Final = "keep large values elsewhere and record references, or divide the work between executions"


class Meter:
    """Counts for one run. `subject` names the execution; one that is not bounded has only the limit of a value.

    Each `…_mark` is the count at which there is next something to say: a warning, then a refusal.
    """

    __slots__ = (
        "_bytes_max",
        "_limits",
        "_operations_max",
        "bytes",
        "bytes_mark",
        "operations",
        "operations_mark",
        "subject",
        "value_mark",
    )

    def __init__(self, limits: Limits, subject: str, *, is_bounded: bool) -> None:
        self.subject = subject
        self._limits = limits
        self._bytes_max = limits.execution_bytes_max if is_bounded else NEVER
        self._operations_max = limits.execution_operations_max if is_bounded else NEVER
        self.bytes = 0
        self.operations = 0
        self.bytes_mark = _warn_at(self._bytes_max)
        self.operations_mark = _warn_at(self._operations_max)
        self.value_mark = _warn_at(limits.payload_bytes_max)

    def begin(self, *, operations: int, size: int, value: int) -> None:
        """Go on from what is recorded: so many operations and bytes, the arguments of `value` bytes among them."""
        self.operations = operations
        self.bytes = size
        if operations >= self.operations_mark:
            self._warn_of_operations()
        self.check(value)

    def ask(self, kind: Kind, name: str) -> None:
        """One more operation was asked for, and `operations_mark` is reached. Raises LimitExceededError."""
        if self.operations > self._operations_max:
            self.operations -= 1
            raise LimitExceededError(
                f"{self.subject}: {kind} {name!r} would be operation {self.operations + 1}, expected at most "
                f"{self._operations_max} (Limits.execution_operations_max); divide the work between executions"
            )
        self._warn_of_operations()

    def take(self, what: str, payload: Payload) -> None:
        """An operation is asked for with a value. Raises LimitExceededError if that is too much.

        Then no operation is begun any more: the refusal is nowhere recorded, and a replay in which there is
        room must not find anything that came after it.
        """
        size = size_of(payload)
        if not self.has_room(size):
            self.operations -= 1
            self.operations_mark = self._operations_max = self.operations
            raise LimitExceededError(
                f"{self.subject}: with the arguments of {what} it would have recorded {self.bytes + size} bytes, "
                f"expected at most {self._bytes_max} (Limits.execution_bytes_max); {EXPECTED}; "
                f"it can begin no other operation"
            )
        self.add(size)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more may be recorded."""
        return self.bytes + size <= self._bytes_max

    def add(self, size: int) -> None:
        """So many bytes more are recorded."""
        self.bytes += size
        if self.bytes >= self.bytes_mark or size >= self.value_mark:
            self.check(size)

    def admit(self, what: str, outcome: Outcome) -> Outcome:
        """The outcome as it may be recorded: itself, or the refusal that takes its place."""
        size = outcome_size(None if outcome.replay_children else outcome.result, outcome.error)
        if size and not self.has_room(size):
            refusal = LimitExceededError(
                f"{self.subject}: with the outcome of {what} it would have recorded {self.bytes + size} bytes, "
                f"expected at most {self._bytes_max} (Limits.execution_bytes_max); {EXPECTED}"
            )
            outcome = Outcome(Status.FAILED, error=values.describe_error(refusal))
            assert outcome.error is not None
            size = error_size(outcome.error)  # recorded whatever the limit is, or nobody would know
        self.add(size)
        return outcome

    def check(self, size: int) -> None:
        """Say what is near its limit, once each."""
        if size >= self.value_mark:
            self.value_mark = NEVER
            self._warn("a value of {} bytes", size, self._limits.payload_bytes_max, "payload_bytes_max")
        if self.bytes >= self.bytes_mark and self.bytes_mark <= self._bytes_max:
            self.bytes_mark = self._bytes_max + 1
            self._warn("{} bytes recorded", self.bytes, self._bytes_max, "execution_bytes_max")

    def _warn_of_operations(self) -> None:
        if self.operations_mark <= self._operations_max:
            self._warn("{} operations", self.operations, self._operations_max, "execution_operations_max")
            self.operations_mark = self._operations_max + 1

    def _warn(self, found: str, count: int, limit: int, name: str) -> None:
        logger.warning(
            "%s: found %s, which is %d %% of Limits.%s (%d); %s",
            self.subject,
            found.format(f"{count:,}"),
            count * 100 // limit,
            name,
            limit,
            EXPECTED,
        )


def _warn_at(limit: int) -> int:
    return NEVER if limit >= NEVER else -(-limit * WARN_PERCENT // 100)
