-- chunk: the bytes of large values, outside the rows that name them by digest; they go with their stream
create table chunk (
  id integer primary key,
  stream integer not null,
  digest blob not null,
  data blob not null
) strict;

create unique index chunk_place on chunk (stream, digest);
