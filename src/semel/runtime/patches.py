"""Patches: which of two paths a run takes where its code changed, and the marker that says so.

The marker is started and settled at once, and is nobody's operation: it takes no number from its
task, so that what comes after has the same names on both paths, and it is delivered to no one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from semel.errors import Evicted, ValidationError
from semel.kernel import ids
from semel.kernel.entry import Kind, Started
from semel.kernel.memo import PATCH
from semel.kernel.operation import Action, Update
from semel.runtime.frame import Frame

if TYPE_CHECKING:
    from semel.runtime.seam import BodySeam


def patched(seam: BodySeam, name: str, source: str, *, root: Frame, record: Callable[[Update], None]) -> bool:
    """Whether the run takes the new path. If that is news, the next append records it, before what follows."""
    if seam.closed is not None:
        raise seam.closed("this run has left memory; nothing it does is recorded")
    if seam.divergence is not None:
        raise Evicted(str(seam.divergence))
    if asyncio._get_running_loop() is not seam.loop:  # noqa: SLF001  # as for any operation
        raise ValidationError(
            f"patch {name!r}: it was asked for outside the body, expected a call from the durable function or "
            f"handler itself; decide there, and pass the answer to the step"
        )
    known = seam.memo.patched(name)
    if known is None:
        seam.memo.patch(name)
        identity = ids.patch_id(root.lineage, name)
        start = Started(identity, Kind.STEP, root.scope or "", name, PATCH, source=source)
        record(Update(identity, Kind.STEP, Action.SUCCEED, seam.now(), start))
        return True
    return known
