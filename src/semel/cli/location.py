"""Which SQLite file a command works on, and reading it beside whoever owns it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from semel.errors import NotFoundError, ValidationError
from semel.store.sqlite import SqliteReader
from semel.store.sqlite_file import open_reader

_PREFIX: Final = "sqlite:///"

store_option = click.option(
    "--store",
    envvar="SEMEL_STORE",
    default="sqlite:///semel.db",
    show_default=True,
    show_envvar=True,
    help="The journal: sqlite:///relative.db or sqlite:////absolute.db.",
)
namespace_option = click.option(
    "--namespace", default="default", show_default=True, help="What names are unique within."
)


def path_of(store: str) -> str:
    """The file that a store's URL names. Raises ValidationError."""
    path = store.removeprefix(_PREFIX) if store.startswith(_PREFIX) else ""
    if not path or "\0" in path:
        raise ValidationError(
            f"store {store!r}: expected a SQLite file, as sqlite:///relative.db or sqlite:////absolute.db; "
            f"set --store or SEMEL_STORE"
        )
    return path


@contextlib.contextmanager
def reading(store: str) -> Iterator[SqliteReader]:
    """The journal, read-only. Raises NotFoundError if there is no file, and what the store raises if it is not ours."""
    path = existing_path(store)
    reader = SqliteReader(open_reader(path), path)
    try:
        yield reader
    finally:
        reader.close()


def existing_path(store: str) -> str:
    """The file that a store's URL names. Raises NotFoundError if there is none."""
    path = path_of(store)
    if not Path(path).exists():
        raise NotFoundError(
            f"store {store!r}: there is no file {path!r}, expected a journal; set --store or SEMEL_STORE, "
            f"or begin one with `semel run`"
        )
    return path
