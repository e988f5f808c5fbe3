"""What World found in the engine: the shortest plan to each, which finds nothing any more."""

import pytest

from semel.testing import Arrival, Close, Jump, Plan, run_once
from tests.simulation.corpus import SHAPES

FOUND: dict[str, tuple[str, Plan]] = {
    # An engine that closes lets go of a body whose next step it does not begin, and set no time to wake it.
    "a closing engine leaves a step to the next one": ("sequential", ((Close(1),),)),
    "a closing engine leaves a turn's step to the next one": ("steps in turns, every turn", ((Close(2),),)),
    # The holder read its own appends again behind a message it had not seen, and forgot when its wait was due.
    "a wait goes on beside a message from elsewhere": (
        "beside, every turn",
        ((Arrival(3, "before", "outside message"),),),
    ),
    # The snapshot of a turn said that nothing before it was needed, of which the holder had not seen all.
    "a message that came before a snapshot is still delivered": (
        "numbers, every turn",
        ((Arrival(5, "after", "outside message"),),),
    ),
    # A step that was cancelled before its task had begun never said that it ended.
    "a timeout that is due with the start of its step": ("timeout", ((Jump(3, 45_000),),)),
    # A step that ended in the callback which began it brought on the release; then an alarm was set, and rang.
    "a wait after a step that ends at once": ("wait", ()),
    # A resume pumped the body in the task of whoever asked for it, where no step can begin its first slice.
    "a resume lets a step begin": ("retry beside", ((Arrival(4, "after", "outside pause"),),)),
    # The holder asked the journal whether its time was over, was told that it had been stopped, and kept holding on.
    "a deadline finds that it was stopped": ("timed out in a wait", ((Arrival(4, "after", "outside stop"),),)),
    # Who waited was told an outcome whose bytes were in chunks, which went with the execution before they were read.
    "a large outcome that is deleted as it is told": ("large values", ((Arrival(7, "after", "outside delete"),),)),
    # It was claimed because its time was over, paused before that was written, and then held by a body not begun.
    "a deadline finds that it was paused": (
        "timed out in a wait, evicted",
        ((Arrival(5, "before", "outside pause"),),),
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_it_is_mended(what: str) -> None:
    name, plan = FOUND[what]
    run = run_once(SHAPES[name], plan=plan)
    assert run.violations == []
    assert len(run.fired) == sum(len(life) for life in plan)
    was_stopped = any(isinstance(fault, Arrival) and fault.kind.endswith("stop") for life in plan for fault in life)
    expected = {"ExecutionStoppedError"} if was_stopped else {run_once(SHAPES[name]).outcome, *SHAPES[name].outcomes}
    assert any(outcome in run.outcome for outcome in expected)
