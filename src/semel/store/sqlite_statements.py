"""The SQL of the SQLite store: each statement is a constant with a name and a sentence.

A statement over many rows is spelled for 1, 2, 4 … 256 of them, and the places left over are
NULL and match nothing. So a batch of any size is one statement, found prepared. And what a
batch reads comes as one row of JSON: SQLite gives the interpreter away for each row that it
steps to, and beside a busy event loop 256 rows of keys took half a second, as JSON 10 ms.
"""

# ruff: noqa: S608 (what is put into a statement here is a constant of this package)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from semel.store.base import ACTOR, FUNCTION, PARKED, RUNNING

# A statement longer than 16,384 bytes is not kept prepared; 256 rows of the widest table are 11,000.
ROWS_MAX: Final = 256
# A journal row that is larger is read when it is asked for.
BODY_BYTES_MAX: Final = 16_384
_SIZES: Final = tuple(1 << power for power in range(ROWS_MAX.bit_length()))

Statement = tuple[str, Sequence[Any]]


class ManyRows:
    """A statement around `{rows}`, a list of values with `width` columns, for any number of rows."""

    def __init__(self, sql: str, *, width: int) -> None:
        place = f"({','.join('?' * width)})"
        self._sized = tuple((size, sql.replace("{rows}", ",".join([place] * size))) for size in _SIZES)
        self._width = width

    def statements(self, values: list[Any]) -> Iterator[Statement]:
        """The statements that take all of `values`, the rows' columns one after another."""
        step = ROWS_MAX * self._width
        for start in range(0, len(values), step):
            chunk = values if len(values) <= step else values[start : start + step]
            size, sql = self._sized[(len(chunk) // self._width - 1).bit_length()]
            yield sql, chunk + [None] * (size * self._width - len(chunk))


_STREAM: Final = """
       s.number, s.uid, s.namespace, s.type, s.name, s.key, s.epoch, s.holder, s.head, s.tail, s.signal, s.base, s.turn,
       s.time_ms, s.wake_ms, s.status, s.invocation, s.version, s.origin, s.created_ms, s.ended_ms"""

# append: add journal rows
APPEND: Final = ManyRows(
    """
insert into record (stream, seq, count, body)
select * from (values {rows})
 where column1 is not null
""",
    width=4,
)

# create: add streams
CREATE: Final = ManyRows(
    """
insert into stream (number, uid, namespace, type, name, key, epoch, holder, head, tail, signal, base, turn,
                    time_ms, wake_ms, status, invocation, version, origin, created_ms, ended_ms)
select * from (values {rows})
 where column1 is not null
""",
    width=21,
)

# move: what an append changes in a stream's row and nothing else, so that no index is touched
MOVE: Final = ManyRows(
    """
update stream
   set head = v.column2, tail = v.column3, time_ms = v.column4, base = v.column5
  from (values {rows}) as v
 where number = v.column1
""",
    width=5,
)

# change: what changes in a stream's row, so that no other index is touched
CHANGE: Final = ManyRows(
    """
update stream
   set epoch = v.column2, holder = v.column3, head = v.column4, tail = v.column5, signal = v.column6,
       base = v.column7, turn = v.column8, time_ms = v.column9, wake_ms = v.column10, status = v.column11,
       invocation = v.column12, version = v.column13, ended_ms = v.column14
  from (values {rows}) as v
 where number = v.column1
""",
    width=14,
)

# put keys: add idempotency keys, or replace them
PUT_KEYS: Final = ManyRows(
    """
insert into key (namespace, operation, key, stream, operation_id, fingerprint, settled_seq, expiry_ms)
select * from (values {rows})
 where column1 is not null
    on conflict (namespace, operation, key) do update
   set stream = excluded.stream, operation_id = excluded.operation_id, fingerprint = excluded.fingerprint,
       settled_seq = excluded.settled_seq, expiry_ms = excluded.expiry_ms
""",
    width=8,
)

# forget keys
FORGET_KEYS: Final = ManyRows(
    """
delete from key
 where (namespace, operation, key) in (values {rows})
""",
    width=3,
)

# find keys: each with the journal row of its outcome where there is one, unless that is large, and its stream
FIND_KEYS: Final = ManyRows(
    f"""
select json_group_array(json_array(
       k.namespace, k.operation, k.key, k.stream, k.operation_id, hex(k.fingerprint), k.settled_seq, k.expiry_ms,
       r.seq, r.count, case when length(r.body) <= {BODY_BYTES_MAX} then hex(r.body) end,{_STREAM}))
  from (values {{rows}}) as wanted
 cross join key as k
    on k.namespace = wanted.column1 and k.operation = wanted.column2 and k.key = wanted.column3
  left join stream as s
    on s.number = k.stream
  left join record as r
    on r.stream = k.stream
   and r.seq = case when k.settled_seq > 0 then k.settled_seq
                    when s.type = '{FUNCTION}' and s.status not in ('{RUNNING}', '{PARKED}') then s.tail
               end
""",
    width=3,
)

# find addresses: actors by type and key
FIND_ADDRESSES: Final = ManyRows(
    f"""
select json_group_array(json_array({_STREAM}))
  from (values {{rows}}) as wanted
 cross join stream as s
    on s.namespace = wanted.column1 and s.name = wanted.column2 and s.key = wanted.column3 and s.type = '{ACTOR}'
""",
    width=3,
)

# streams: by number, as a JSON list
STREAMS: Final = f"""
select json_group_array(json_array({_STREAM}))
  from json_each(?) as wanted
 cross join stream as s
    on s.number = wanted.value
"""

STREAM: Final = f"select{_STREAM} from stream as s where s.number = ?"

STREAM_BY_UID: Final = f"select{_STREAM} from stream as s where s.uid = ?"

STREAM_BY_ADDRESS: Final = f"""
select{_STREAM}
  from stream as s
 where s.namespace = ? and s.name = ? and s.key = ? and s.type = '{ACTOR}'
"""

KEY: Final = """
select namespace, operation, key, stream, operation_id, fingerprint, settled_seq, expiry_ms
  from key
 where namespace = ? and operation = ? and key = ?
"""

# rows: from the one that contains seq :first
ROWS: Final = """
select stream, seq, count, body
  from record
 where stream = :stream
   and seq >= (select coalesce(max(seq), 0) from record where stream = :stream and seq <= :first)
   and seq + count > :first
 order by seq
 limit :limit
"""

ROW_AT: Final = "select stream, seq, count, body from record where stream = ? and seq = ?"

# due: unheld streams, longest due first
DUE: Final = f"""
select{_STREAM}
  from stream as s
 where s.wake_ms <= :now
   and s.holder is null
   and (:names is null or s.name in (select value from json_each(:names)))
 order by s.wake_ms, s.number
 limit :limit
"""

# next wake: walks the index of wakes, and stops at the first stream that the caller can run
NEXT_WAKE: Final = """
select wake_ms
  from stream
 where wake_ms is not null
   and holder is null
   and (:names is null or name in (select value from json_each(:names)))
 order by wake_ms
 limit 1
"""

HELD_BY: Final = f"select{_STREAM} from stream as s where s.holder = ? order by s.number"

# dead workers: holders of streams whose lease does not run
DEAD_WORKERS: Final = """
select distinct holder
  from stream
 where holder is not null
   and not exists (select 1 from worker where worker.id = stream.holder and worker.lease_until_ms > ?)
 order by holder
"""

LIST: Final = f"""
select{_STREAM}
  from stream as s
 where s.number < coalesce(:before, 9223372036854775807)
   and (:type is null or s.type = :type)
   and (:namespace is null or s.namespace = :namespace)
   and (:name is null or s.name = :name)
   and (:status is null or s.status = :status)
 order by s.number desc
 limit :limit
"""

PUT_WORKER: Final = """
insert into worker (id, lease_until_ms)
values (?, ?)
    on conflict (id) do update set lease_until_ms = excluded.lease_until_ms
"""

FORGET_WORKER: Final = "delete from worker where id = ?"

JOURNAL_ID: Final = "select journal_id from meta"

LAST_NUMBER: Final = "select coalesce(max(number), 0) from stream"
