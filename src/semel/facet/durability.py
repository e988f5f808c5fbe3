"""DurabilityFacet: a declaration the engine reads. It wraps nothing.

Mailbox, keys, replies and single activation are durable for every actor. With this facet its
state is too: it is recorded every `checkpoint_interval` turns, and turns after the last
snapshot are run again on recovery, answered from the journal. Without it, state starts from
`init` at each activation and settled turns are never run again.
"""

from __future__ import annotations

from semel.errors import ValidationError


class Facet:
    """The root of what an actor class may list in `facets`, outermost first."""


class DurabilityFacet(Facet):
    """The actor's state survives. `checkpoint_interval=1` never runs a settled turn again.

    Raises ValidationError for an interval under 1.
    """

    def __init__(self, *, checkpoint_interval: int = 1) -> None:
        if not isinstance(checkpoint_interval, int) or checkpoint_interval < 1:
            raise ValidationError(
                f"DurabilityFacet.checkpoint_interval: found {checkpoint_interval!r}, expected a whole number "
                f"of turns, 1 or more; 1 records the state with every turn"
            )
        self.checkpoint_interval = checkpoint_interval
