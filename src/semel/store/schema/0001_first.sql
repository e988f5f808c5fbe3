-- The journal's tables. A later version adds a file with the next number; this one never changes.

-- meta: one row, made once
create table meta (
  id integer primary key check (id = 1),
  journal_id text not null
) strict;

-- stream: run queue, timer table and mailbox in one; one row each
create table stream (
  number integer primary key,
  uid text not null,
  namespace text not null,
  type text not null,
  name text not null,
  key text not null,
  epoch integer not null,
  holder text,
  head integer not null,
  tail integer not null,
  signal integer not null,
  base integer not null,
  turn text not null,
  time_ms integer not null,
  wake_ms integer,
  status text not null,
  invocation integer not null,
  version text not null,
  origin text not null,
  created_ms integer not null,
  ended_ms integer
) strict;

create unique index stream_uid on stream (uid);

-- executions are found by their key row, which may be forgotten and used again
create unique index stream_address on stream (namespace, name, key) where type = 'actor';

create index stream_wake on stream (wake_ms) where wake_ms is not null and holder is null;

create index stream_holder on stream (holder) where holder is not null;

-- record: append-only, so that its rows are written at the end of the file
create table record (
  id integer primary key,
  stream integer not null,
  seq integer not null,
  count integer not null,
  body blob not null
) strict;

create unique index record_place on record (stream, seq);

-- key: idempotency
create table key (
  namespace text not null,
  operation text not null,
  key text not null,
  stream integer not null,
  operation_id text not null,
  fingerprint blob not null,
  settled_seq integer not null,
  expiry_ms integer,
  primary key (namespace, operation, key)
) strict, without rowid;

create table worker (
  id text primary key,
  lease_until_ms integer not null
) strict, without rowid;
