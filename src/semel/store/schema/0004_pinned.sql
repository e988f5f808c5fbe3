-- Open executions that only the version they began with may run, so that a claim need not look for them.

create index stream_pinned on stream (name) where ended_ms is null and substr(version, -1) = '!';
