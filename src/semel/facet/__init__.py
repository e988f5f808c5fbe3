"""What may be declared of an actor's turns."""

from semel.facet.durability import DurabilityFacet, Facet

__all__ = ["DurabilityFacet", "Facet"]
