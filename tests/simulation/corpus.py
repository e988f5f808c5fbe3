"""The shapes by name, and which share of their explorations which command runs."""

from pathlib import Path

from semel.testing import ALL, Report, Shape, explore
from semel.testing.explore import Kind, StoreName
from tests.simulation.actor_operation_shapes import actor_operation_shapes
from tests.simulation.actor_shapes import actor_shapes
from tests.simulation.function_shapes import function_shapes
from tests.simulation.large_shapes import large_shapes
from tests.simulation.lifecycle_shapes import lifecycle_shapes
from tests.simulation.operation_shapes import operation_shapes
from tests.simulation.patch_shapes import patch_shapes

# Few operations each, so that every pair of crashes is run each time; of the others a share, and all in the soak.
SMALL: list[Shape] = [*function_shapes(), *actor_shapes()]
LARGE: list[Shape] = [
    *operation_shapes(),
    *actor_operation_shapes(),
    *lifecycle_shapes(),
    *patch_shapes(),
    *large_shapes(),
]
SHAPES: dict[str, Shape] = {shape.name: shape for shape in [*SMALL, *LARGE]}
SEEDS = Path(__file__).with_name("seeds.txt")
SQLITE_KINDS: tuple[Kind, ...] = ("crash", "pair", "close")
PAIRS_ON_SQLITE = 0.1
PLANS_OF_LARGE = {"memory": 5, "sqlite": 2}


def explore_shape(name: str, store: StoreName) -> Report:
    """What every run of the tests explores of a shape: each single crash on both stores, and more."""
    shape = SHAPES[name]
    plans_max = PLANS_OF_LARGE[store] if shape in LARGE else None
    if store == "memory":
        return explore(shape, kinds=ALL, plans_max=plans_max)
    return explore(shape, store="sqlite", kinds=SQLITE_KINDS, pairs=PAIRS_ON_SQLITE, plans_max=plans_max)


def found_seeds() -> list[tuple[str, int]]:
    """Shape and seed of each random exploration that once found something."""
    lines = SEEDS.read_text("utf-8").splitlines()
    pairs = [line.rsplit(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(name.strip(), int(seed)) for name, seed in pairs]
