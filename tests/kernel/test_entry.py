"""The facts: eight kinds, and names on disk that nobody may change."""

from __future__ import annotations

from typing import get_args

import msgspec

from semel.kernel.entry import ENTRY_KINDS, SETTLED, Entry, MessageHeader, Payload, Status
from semel.kernel.report import DivergenceReport, Row, Side
from semel.kernel.values import ErrorData
from semel.store.codec import Append
from tests.kernel import golden


def test_there_are_nine_kinds_of_entry() -> None:
    assert len(ENTRY_KINDS) == 9
    assert set(ENTRY_KINDS) == set(get_args(Entry))


def names_on_disk(struct: type[msgspec.Struct]) -> str:
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    tag = f" tag={info.tag}" if info.tag is not None else ""
    fields = [
        f"  {field.encode_name:<8} {field.name}{' (required)' if field.required else f' = {field.default!r}'}"
        for field in info.fields
    ]
    return "\n".join([f"{struct.__name__}{tag}", *fields, ""])


def test_the_names_on_disk_never_change() -> None:
    parts = (Payload, MessageHeader, ErrorData, DivergenceReport, Row, Side)
    found = "\n".join(names_on_disk(struct) for struct in (Append, *ENTRY_KINDS, *parts))
    golden.check("names-on-disk.txt", found)


def test_a_name_on_disk_is_used_once_in_its_kind() -> None:
    for kind in ENTRY_KINDS:
        names = [field.encode_name for field in msgspec.structs.fields(kind)]
        assert len(names) == len(set(names))
        assert "_" not in names
        assert max(map(len, names)) <= 2


def test_each_kind_has_a_tag_of_its_own() -> None:
    tags = [kind.__struct_config__.tag for kind in ENTRY_KINDS]
    assert len(tags) == len(set(tags))


def test_what_is_empty_is_left_out_of_the_bytes() -> None:
    for kind in ENTRY_KINDS:
        required = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
        values = {"o": "1", "k": "STEP", "u": 5, "n": 1, "a": "pause"}
        raw = {"_": kind.__struct_config__.tag, **{name: values[name] for name in required}}
        assert msgspec.to_builtins(msgspec.convert(raw, kind)) == raw


def test_a_settled_status_is_one_that_is_neither_open_nor_absent() -> None:
    assert set(Status) - SETTLED == {Status.ABSENT, Status.STARTED, Status.PENDING, Status.READY}
