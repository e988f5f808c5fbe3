"""Writes docs/journal.md from the tables in the code, the text in journal_doc.txt, and the names of the tests.

`python scripts/journal_doc.py` writes the page; with `--check` it only compares, and ends with 1 if they differ.
"""  # noqa: INP001  # a script, not a package

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from semel.kernel.entry import ENTRY_KINDS, SETTLED, Kind, MessageHeader, Payload, Status  # noqa: E402
from semel.kernel.operation import TRANSITIONS, Action, Operation, due_action  # noqa: E402
from semel.kernel.values import ENCODING, ErrorData  # noqa: E402
from semel.store import codec  # noqa: E402
from semel.store.base import Stream  # noqa: E402

PAGE = ROOT / "docs" / "journal.md"
TEXT = ROOT / "scripts" / "journal_doc.txt"
SHARED = {
    "operation": "the id of the operation",
    "offset_ms": "the time of the entry, less the time of its row",
    "error": "what was raised",
    "kind": "its type, as in the state machine below",
}
MEANINGS: dict[str, dict[str, str]] = {
    "Append": {
        "time_ms": "when it was written: the clock, or the time of the row before if the clock is behind (J1)",
        "entries": "the facts, in order",
        "epoch": "of the holder that wrote it, or of the stream when an arrival did",
        "invocation": "which pass over the code wrote it",
        "client_token": "by which a repeated request is known",
        "data_key": "the key that its payloads are encrypted with, if they are",
        "worker": "who wrote it",
    },
    "Started": {
        "parent": "the scope it is in: a child context or a message; empty in the body of an execution",
        "name": "what the code calls it; of an execution its key, of a message its method",
        "subtype": "what kind of context it is",
        "path": "its lineage, where the id is only its hash",
        "source": "file:line that asked for it",
        "arguments": "a digest of the arguments of a step",
        "version": "the code that runs it: name and hash",
        "effect": "what a step does to the world: repeatable, keyed or at_most_once",
        "semantics": "empty, or at_most_once_per_retry",
        "effect_key": "the name that its provider deduplicates by, where it is not derived from the ids",
        "due_ms": "when time does something to it, see below",
        "payload": "the arguments",
        "message": "the header, of a message",
        "fingerprint": "digest of the request, by which another request under the key is refused",
        "origin": "the stream that effect keys are derived from",
        "trace": "the ids of its trace",
        "heartbeat_ms": "how long a callback may be silent",
        "child": "the execution that an invoke made",
    },
    "RetryScheduled": {
        "due_ms": "when the next attempt may begin",
        "error": "how the attempt failed",
        "payload": "what it hands to the next one",
    },
    "RetryReady": {},
    "HeartbeatReceived": {},
    "Settled": {
        "status": "how it ended",
        "result": "the outcome, of one that succeeded",
        "requested": "its own awaiter asked for this end, so nothing is delivered (R2)",
        "replay_children": "a replay asks for what is inside again, although it has an outcome",
    },
    "Delivered": {},
    "TurnEnded": {
        "operation": "the message; empty where a snapshot was forced",
        "state": "the actor's state after the turn: with it, this is a snapshot",
        "version": "the code that made the state",
    },
    "InvocationEnded": {
        "invocation": "which pass, counted from 1",
        "error": "how it crashed, if it did",
    },
    "Controlled": {
        "action": "pause, resume or park",
        "reason": "in words, for a person",
        "actor": "who did it",
        "due_ms": "the execution's deadline from here on; none while its clock is held",
        "report": "of a divergence: both sides around the first difference, and the likely cause",
    },
    "Payload": {
        "data": "the bytes",
        "encoding": f"of the bytes; `{ENCODING}` is msgpack with extension codes",
        "digest": "of bytes that lie in chunks elsewhere",
        "size": "how many bytes they are, when they are in chunks",
        "key_id": "the key that they are encrypted with",
    },
    "MessageHeader": {
        "kind": "call, cast or info",
        "method": "the handler",
        "sender": "the stream that sent it, if one did",
        "sender_operation": "the operation of the sender",
        "reply_to": "where the reply goes",
        "chain": "the open calls that led to it, by which a call back into one of them is refused",
        "deadline_ms": "after this its caller does not wait",
        "priority": "higher goes first (J8)",
        "key": "the idempotency key",
    },
    "ErrorData": {
        "type": "the class, never with a module",
        "message": "its text, shortened to 4 kB",
        "data": "its arguments, where the codec can keep them",
        "stack": "the innermost frames, file:line",
    },
    "Stream": {
        "number": "the store's own name for it; rows of the journal are found by it",
        "uid": "the world's name for it, random, never used again",
        "namespace": "of a tenant",
        "type": "`fn` or `actor`",
        "name": "the function or the actor type",
        "key": "the idempotency key of an execution, the key of an actor",
        "epoch": "counts the holders; a lower one may write no more (J4)",
        "holder": "the worker that has it, if one has",
        "head": "the last seq",
        "tail": "the seq of the last row; an outcome is in it",
        "signal": "the last seq at which an arrival touched an operation of a running body",
        "base": "the first seq that recovery needs",
        "turn": "the message whose turn is open while its actor is suspended",
        "time_ms": "of the last row (J1)",
        "wake_ms": "when it next needs a worker; null while it is held, settled, parked, or waits for arrivals only",
        "status": "RUNNING, PARKED, or how the execution settled",
        "invocation": "counts the passes over the code",
        "version": "the code it was started with",
        "origin": "the stream that effect keys are derived from",
        "created_ms": "when it was made",
        "ended_ms": "when the execution settled; its key expires that much later",
    },
}
INVARIANTS = {
    "J1": "`seq` is 1, 2, 3 … in each stream, without gaps. The time of a row is the clock's, or that of the row "
    "before it if the clock has stepped back, so that times never decrease.",
    "J2": "Nothing about an operation precedes its start. A close that has no start before it writes both, in order.",
    "J3": "An operation settles once, and nothing about it follows.",
    "J4": "An append with a superseded epoch changes nothing, and its author learns that it has lost the stream.",
    "J5": "An arrival is never refused because of a lease.",
    "J6": "If something arrived after what the holder has seen, its release wakes the stream now, and its base does "
    "not pass what it has not seen.",
    "J7": "What is inside a settled scope is frozen: it never comes due, and stays as it stands.",
    "J8": "The turns of one actor do not overlap, and run in the order of the mailbox: priority, then arrival; a turn "
    "that has recorded something goes on before any other begins. A turn ends once, with the state; its message "
    "settles once, with the reply, with the turn or later.",
    "J9": "A snapshot equals the state that replay reaches.",
    "J10": "One key, one request, one outcome, until the key expires; expiry counts from completion.",
    "J11": "A suspended stream wakes no later than its earliest due operation, or it has an operation that only an "
    "arrival settles, or it is paused or parked. Its wake changes in the transaction that changes its state.",
}
RULES = {
    "R1": "**Eviction.** Only a body at rest, with no step body in flight, is let go from memory, and none is left to "
    "the garbage collector. First its seam closes: whatever it asks for raises, and nothing is recorded. Then its "
    "tasks are cancelled and run to rest, a bounded number of rounds; what still lives is kept, counted and reported. "
    "A run whose seam closed has no outcome, whatever it returns or raises. A `finally` in a body may so run once for "
    "each eviction: effects belong in steps.",
    "R2": "**Cancellation.** An operation settles once, with what happened. When its awaiter is cancelled, a wait, a "
    "callback, an invoke and a step in back-off settle CANCELLED at once; a running step body is told, and the "
    "awaiter resumes with its true outcome when it ends. What was cancelled is never begun again, also after a crash.",
    "R3": "**Authorship.** Each transition has one author. The holder writes what its body asks for and what comes "
    "due; anyone writes messages, results from outside and control. Decisions are made inside the transaction, on the "
    "rows as stored. Many calls share a commit, and a refused one disturbs no other.",
    "R4": "**Output commit.** Computation may run ahead of the disk; output may not. The start of a step body, a reply "
    "and an acknowledgement wait until everything before them in the stream is durable.",
    "R5": "**Leases and residents.** A lease belongs to a worker, an epoch to a stream. A body in memory is a cache: "
    "it is used only if nobody else held the stream since. Holding the owner's lock of a file proves all former "
    "holders dead: their leases are void at start-up.",
}
CITED = re.compile(r"^test_((?:[JRG]\d+[a-e]?_(?:and_)?)+)")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fields_of(struct: type[msgspec.Struct]) -> str:
    """The fields of a record with their names on disk. Raises KeyError for one that has no meaning above."""
    meanings = SHARED | MEANINGS[struct.__name__]
    rows = [
        [f"`{field.encode_name}`", f"`{field.name}`", meanings[field.name] + (" (always there)" * field.required)]
        for field in msgspec.structs.fields(struct)
    ]
    return table(["on disk", "field", "means"], rows)


def first_paragraph(struct: type) -> str:
    return " ".join((struct.__doc__ or "").split())


def entries() -> str:
    parts = []
    for kind in ENTRY_KINDS:
        tag = kind.__struct_config__.tag
        parts.append(f"### {kind.__name__}, `{tag}`\n\n{first_paragraph(kind)}\n\n{fields_of(kind)}")
    return "\n\n".join(parts)


def parts() -> str:
    shown = (Payload, MessageHeader, ErrorData)
    return "\n\n".join(f"### {part.__name__}\n\n{fields_of(part)}" for part in shown)


def stream() -> str:
    meanings = MEANINGS["Stream"]
    return table(["column", "means"], [[f"`{name}`", meanings[name]] for name in Stream.__struct_fields__])


def machine() -> str:
    """Each kind as a table and as a drawing, both from TRANSITIONS."""
    parts = []
    for kind in Kind:
        actions = {action: arrows for (of, action), arrows in TRANSITIONS.items() if of is kind}
        sources = [status for status in Status if any(status in arrows for arrows in actions.values())]
        rows = [
            [f"{action}", *(f"{arrows.get(source, '–')}" for source in sources)] for action, arrows in actions.items()
        ]
        parts.append(f"### {kind}\n\n{table(['', *map(str, sources)], rows)}\n\n{drawing(actions)}")
    return "\n\n".join(parts)


def drawing(actions: dict[Action, dict[Status, Status]]) -> str:
    labels: dict[tuple[str, str], list[str]] = {}
    for action, arrows in actions.items():
        for source, target in arrows.items():
            place = "[*]" if source is Status.ABSENT else str(source)
            labels.setdefault((place, str(target)), []).append(str(action))
    lines = [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in labels.items()]
    ends = dict.fromkeys(target for _, target in labels if Status(target) in SETTLED)
    lines += [f"    {end} --> [*]" for end in ends]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def due() -> str:
    rows = [
        [str(kind), str(status), str(action)]
        for kind in Kind
        for status in Status
        if (action := due_action(Operation("", kind, status, due_ms=0))) is not None
    ]
    return table(["type", "status", "action"], rows)


def citations(root: Path = ROOT / "tests") -> dict[str, list[str]]:
    """The tests named after each rule: `test_J6_…`, `test_J8_J9_…` or `test_J7_and_J11_…`."""
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            cited = CITED.match(node.name)
            for rule in re.findall(r"[JRG]\d+", cited[1]) if cited else ():
                found.setdefault(rule, []).append(f"`{path.relative_to(root.parent)}::{node.name}`")
    return found


def rules(texts: dict[str, str], cited: dict[str, list[str]]) -> str:
    parts = []
    for number, text in texts.items():
        tests = "\n".join(f"- {test}" for test in sorted(cited.get(number, ())))
        parts.append(f"### {number}\n\n{text}\n\n{tests or 'No test has this number in its name.'}")
    return "\n\n".join(parts)


def page() -> str:
    cited = citations()
    text = TEXT.read_text(encoding="utf-8")
    for name, content in {
        "version": str(codec.VERSION),
        "encoding": ENCODING,
        "append": fields_of(codec.Append),
        "count": {8: "eight"}.get(len(ENTRY_KINDS), str(len(ENTRY_KINDS))),
        "entries": entries(),
        "parts": parts(),
        "stream": stream(),
        "machine": machine(),
        "due": due(),
        "invariants": rules(INVARIANTS, cited),
        "rules": rules(RULES, cited),
    }.items():
        text = text.replace("{{" + name + "}}", content)
    return text


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == made else 1)
    PAGE.write_text(made, encoding="utf-8")
