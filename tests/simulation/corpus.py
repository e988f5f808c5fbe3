"""The shapes by name, and which share of their explorations which command runs."""

from pathlib import Path

from semel.testing import ALL, Report, Shape, explore
from semel.testing.explore import Kind
from tests.simulation.actor_operation_shapes import actor_operation_shapes
from tests.simulation.actor_shapes import actor_shapes
from tests.simulation.function_shapes import function_shapes
from tests.simulation.large_shapes import large_shapes
from tests.simulation.lifecycle_shapes import lifecycle_shapes
from tests.simulation.operation_shapes import operation_shapes
from tests.simulation.patch_shapes import patch_shapes

SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in [
        *function_shapes(),
        *operation_shapes(),
        *actor_shapes(),
        *actor_operation_shapes(),
        *lifecycle_shapes(),
        *patch_shapes(),
        *large_shapes(),
    ]
}
SEEDS = Path(__file__).with_name("seeds.txt")
SQLITE_KINDS: tuple[Kind, ...] = ("crash", "pair", "close")
PAIRS_ON_SQLITE = 0.1


def explore_shape(name: str, store: str) -> Report:
    """What every run of the tests explores of a shape."""
    if store == "memory":
        return explore(SHAPES[name], kinds=ALL)
    return explore(SHAPES[name], store="sqlite", kinds=SQLITE_KINDS, pairs=PAIRS_ON_SQLITE)


def found_seeds() -> list[tuple[str, int]]:
    """Shape and seed of each random exploration that once found something."""
    lines = SEEDS.read_text("utf-8").splitlines()
    pairs = [line.rsplit(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(name.strip(), int(seed)) for name, seed in pairs]
