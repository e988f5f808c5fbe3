"""Blocking calls in a body, which its loop cannot see: an audit hook reports where they are made.

A body that opens a file or a socket blocks every other body, and does it again at each replay.
For development and tests: the interpreter keeps a hook for ever, and asks it at every audited
event of the process. Nothing is installed before the first `watch`, and a hook that nobody
watches with returns at once. `time.sleep` is audited from Python 3.13 on; before that, and for
what computes, there is the watchdog.
"""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NamedTuple

from semel.runtime.body_loop import BodyLoop

EVENTS: Final = frozenset(
    [
        "builtins.input",
        "glob.glob",
        "open",
        "os.fork",
        "os.forkpty",
        "os.listdir",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.scandir",
        "os.spawn",
        "os.startfile",
        "os.system",
        "shutil.copyfile",
        "shutil.rmtree",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.sendto",
        "sqlite3.connect",
        "subprocess.Popen",
        "time.sleep",
        "urllib.Request",
    ]
)
# What these do with files is not the business of the code that imports, logs or fails.
EXEMPT: Final = ("importlib", "_frozen_importlib", "logging", "warnings", "linecache", "traceback", "zipimport")
STDLIB: Final = os.path.realpath(sysconfig.get_path("stdlib"))
INSTALLED: Final = ("/site-packages/", "/dist-packages/", "\\site-packages\\")
OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  # a prefix of names


class Blocking(NamedTuple):
    """A blocking call in a body, by the line of user code that led to it."""

    event: str
    file: str
    line: int

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line}: a body led to {self.event!r}, which blocks the event loop and is done again "
            f"at each replay; expected only operations and asyncio's tasks, locks and timers; "
            f"put it in a step: await ctx.step(...)"
        )


Report = Callable[[Blocking], None]
_watchers: dict[Report, set[Blocking]] = {}  # and what each has been told
_in_def_body = threading.local()
_lock = threading.Lock()
_is_installed = False


def watch(report: Report) -> Callable[[], None]:
    """Call `report` for each place in a body that blocks, once; return what ends this."""
    global _is_installed  # noqa: PLW0603  # a hook stays for the life of the process
    with _lock:
        _watchers[report] = set()
        if not _is_installed:
            _is_installed = True
            sys.addaudithook(_hook)

    def stop() -> None:
        with _lock:
            _watchers.pop(report, None)

    return stop


class DefBody:
    """Marks the thread of a `def` body while its code runs."""

    def __enter__(self) -> None:
        _in_def_body.depth = getattr(_in_def_body, "depth", 0) + 1

    def __exit__(self, *_: object) -> None:
        _in_def_body.depth -= 1


def _hook(event: str, _arguments: tuple[Any, ...]) -> None:
    if not _watchers or event not in EVENTS:
        return
    running = asyncio._get_running_loop()  # noqa: SLF001  # the documented one raises where there is none
    if type(running) is not BodyLoop and not getattr(_in_def_body, "depth", 0):
        return
    place = _place(sys._getframe(1))  # noqa: SLF001  # inspect.currentframe walks the same way, at a cost
    if place is None:
        return
    found = Blocking(event, *place)
    for report, seen in list(_watchers.items()):
        if found not in seen:
            seen.add(found)
            report(found)


def _place(frame: FrameType | None) -> tuple[str, int] | None:
    """The innermost line of user code, else of a package it uses. None for what is nobody's doing."""
    package: tuple[str, int] | None = None
    while frame is not None:
        name, file = str(frame.f_globals.get("__name__")), frame.f_code.co_filename
        if name.partition(".")[0] in EXEMPT or file.startswith("<frozen"):
            return None
        if name == "semel.runtime.body_loop":
            break
        if file.startswith(OURS):
            pass
        elif any(part in file for part in INSTALLED):
            package = package or (file, frame.f_lineno)
        elif not file.startswith(STDLIB):
            return file, frame.f_lineno
        frame = frame.f_back
    return package
