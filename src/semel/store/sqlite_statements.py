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

from semel.kernel.ids import PINNED
from semel.store.base import ACTOR, FUNCTION, PARKED, PAUSED, PAUSING, RUNNING

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

# The columns of the widest row that is written.
WRITE_WIDTH: Final = 21
_NEW: Final = tuple(f"new.column{number}" for number in range(1, WRITE_WIDTH + 1))

# What a row of `batch` is: the first of its columns.
APPEND, MOVE, CREATE, CHANGE, PUT_KEY = range(1, 6)

# batch: a view to insert into. One statement then writes all tables, commits, and gives the
# interpreter away once; begin, a statement a table and commit would each wait to get it back.
BATCH: Final = f"""
create temp view batch as
select null as kind, {", ".join(f"null as column{number}" for number in range(1, WRITE_WIDTH + 1))};

create temp trigger batch_write instead of insert on batch
begin
  -- append, and move: add a journal row; an append changes nothing else in its stream's row than its place
  insert into record (stream, seq, count, body)
  select new.column1, new.column2, new.column3, new.column4
   where new.kind in ({APPEND}, {MOVE});

  update stream
     set head = new.column5, tail = new.column2, time_ms = new.column6, base = new.column7
   where new.kind = {MOVE}
     and number = new.column1;

  -- create: add a stream
  insert into stream (number, uid, namespace, type, name, key, epoch, holder, head, tail, signal, base, turn,
                      time_ms, wake_ms, status, invocation, version, origin, created_ms, ended_ms)
  select {", ".join(_NEW)}
   where new.kind = {CREATE};

  -- change: what may change in a stream's row
  update stream
     set epoch = new.column2, holder = new.column3, head = new.column4, tail = new.column5, signal = new.column6,
         base = new.column7, turn = new.column8, time_ms = new.column9, wake_ms = new.column10,
         status = new.column11, invocation = new.column12, version = new.column13, ended_ms = new.column14
   where new.kind = {CHANGE}
     and number = new.column1;

  -- put key: add an idempotency key, or replace it
  insert into key (namespace, operation, key, stream, operation_id, fingerprint, settled_seq, expiry_ms, outcome)
  select {", ".join(_NEW[:9])}
   where new.kind = {PUT_KEY}
      on conflict (namespace, operation, key) do update
     set stream = excluded.stream, operation_id = excluded.operation_id, fingerprint = excluded.fingerprint,
         settled_seq = excluded.settled_seq, expiry_ms = excluded.expiry_ms, outcome = excluded.outcome;
end;
"""

# write: a batch, as rows of its kinds
WRITE: Final = ManyRows("insert into batch values {rows}", width=WRITE_WIDTH + 1)

# forget keys
FORGET_KEYS: Final = ManyRows(
    """
delete from key
 where (namespace, operation, key) in (values {rows})
""",
    width=3,
)

# delete streams: their journal rows and chunks, then their own
DELETE_RECORDS: Final = ManyRows("delete from record where stream in (values {rows})", width=1)

DELETE_CHUNKS: Final = ManyRows("delete from chunk where stream in (values {rows})", width=1)

DELETE_STREAMS: Final = ManyRows("delete from stream where number in (values {rows})", width=1)

# find keys: each with the journal row of its outcome where there is one, unless that is large, and its stream
FIND_KEYS: Final = ManyRows(
    f"""
select json_group_array(json_array(
       k.namespace, k.operation, k.key, k.stream, k.operation_id, hex(k.fingerprint), k.settled_seq, k.expiry_ms,
       hex(k.outcome), r.seq, r.count, case when length(r.body) <= {BODY_BYTES_MAX} then hex(r.body) end,{_STREAM}))
  from (values {{rows}}) as wanted
 cross join key as k
    on k.namespace = wanted.column1 and k.operation = wanted.column2 and k.key = wanted.column3
  left join stream as s
    on s.number = k.stream
  left join record as r
    on r.stream = k.stream
   and r.seq = case when k.settled_seq > 0 then k.settled_seq
                    when s.type = '{FUNCTION}' and s.status not in ('{RUNNING}', '{PARKED}', '{PAUSED}') then s.tail
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
select namespace, operation, key, stream, operation_id, fingerprint, settled_seq, expiry_ms, outcome
  from key
 where namespace = ? and operation = ? and key = ?
"""

# key of version 1: a file that is only read is not brought up to date
KEY_OF_VERSION_1: Final = """
select namespace, operation, key, stream, operation_id, fingerprint, settled_seq, expiry_ms, null
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

CHUNK: Final = "select data from chunk where stream = ? and digest = ?"

PUT_CHUNK: Final = "insert into chunk (stream, digest, data) values (?, ?, ?) on conflict (stream, digest) do nothing"

# A stream that is not pinned. `substr` is how the index of those that are has it.
_IS_FREE: Final = f"substr(version, -1) <> '{PINNED}'"

# due: unheld streams, longest due first
DUE: Final = f"""
select{_STREAM}
  from stream as s
 where s.wake_ms <= :now
   and s.holder is null
   and (:names is null or s.name in (select value from json_each(:names)))
   and (:names is null or {_IS_FREE} or s.version in (select value from json_each(:versions)))
 order by s.wake_ms, s.number
 limit :limit
"""

# next wake: walks the index of wakes, and stops at the first stream that the caller can run
NEXT_WAKE: Final = f"""
select wake_ms
  from stream
 where wake_ms > :after
   and holder is null
   and (:names is null or name in (select value from json_each(:names)))
   and (:names is null or {_IS_FREE} or version in (select value from json_each(:versions)))
 order by wake_ms
 limit 1
"""

# pinned names: by an index of its own, which is nearly always empty
PINNED_NAMES: Final = f"""
select distinct name
  from stream
 where ended_ms is null
   and substr(version, -1) = '{PINNED}'
 order by name
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

_LISTED: Final = f"""
select{_STREAM}
  from stream as s
 where s.number < coalesce(:before, 9223372036854775807)
   and s.number > coalesce(:after, 0)
   and (:type is null or s.type = :type)
   and (:namespace is null or s.namespace = :namespace)
   and (:name is null or s.name = :name)
   and (:statuses is null
        or case when s.status = '{PAUSED}' and s.holder is not null then '{PAUSING}' else s.status end
           in (select value from json_each(:statuses)))
   and substr(s.key, 1, length(:key_prefix)) = :key_prefix
   and (:created_after_ms is null or s.created_ms >= :created_after_ms)
   and (:created_before_ms is null or s.created_ms < :created_before_ms)"""

# list: newest first
LIST: Final = f"""{_LISTED}
 order by s.number desc
 limit :limit
"""

LIST_OLDEST_FIRST: Final = f"""{_LISTED}
 order by s.number
 limit :limit
"""

# scan ended: executions that ended at or before :until, among :limit streams after number :after
SCAN_ENDED: Final = f"""
select max(number), count(*),
       json_group_array(json_array(number, namespace, name, key, ended_ms) order by number)
           filter (where type = '{FUNCTION}' and ended_ms <= :until)
  from (select number, type, namespace, name, key, ended_ms
          from stream
         where number > :after
         order by number
         limit :limit)
"""

# scan expired: keys whose time is over, among :limit keys after one, in the order of the table
SCAN_EXPIRED: Final = """
select json_group_array(json_array(namespace, operation, key, coalesce(expiry_ms <= :now, 0)))
  from (select namespace, operation, key, expiry_ms
          from key
         where (namespace, operation, key) > (:namespace, :operation, :key)
         order by namespace, operation, key
         limit :limit)
"""

PUT_WORKER: Final = """
insert into worker (id, lease_until_ms)
values (?, ?)
    on conflict (id) do update set lease_until_ms = excluded.lease_until_ms
"""

FORGET_WORKER: Final = "delete from worker where id = ?"

JOURNAL_ID: Final = "select journal_id from meta"

LAST_NUMBER: Final = "select coalesce(max(number), 0) from stream"
