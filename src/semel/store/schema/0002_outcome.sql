-- The outcome of an execution that was deleted, until its key expires: a journal row of one entry.

alter table key add column outcome blob;
