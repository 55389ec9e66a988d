"""Record where the user's code leaves the project: the calls and the files that a fault could hit.

A call counts if a function of the user calls a function outside of the project, and one of these is
true:

- While it ran, Python announced a connection or a new process (by an audit event).
- It is a method of a third-party object that must be closed (its class has ``close`` or
  ``aclose``): a client, a connection, a session.

A file counts if it is in the test's own directories, on a remote filesystem, or in the project.
Code is not a file of data. Names of files have their numbers replaced by ``*``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..core.fault_points import file_point
from ..core.sites import Key
from .controller import Controller
from .scopes import INTERNAL_OPERATION, inside
from .user_code import INTERPRETER, PACKAGE, current_project, is_installed, is_users

__all__ = ["Survey", "call_point", "function_text", "is_test_code", "user_frames"]

MAX_CALLS = 2_000_000
"""The number of calls after which a survey ends, so that a trial does not time out."""
OUTSIDE = (
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostby",
    "subprocess.",
    "sqlite3.connect",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
)
"""The beginnings of the audit events for connections and new processes."""
CODE_FILES = (".py", ".pyc", ".pyi", ".so", ".pyd", ".ini", ".toml", ".cfg")
_HIDDEN = re.compile(r"(^|/)(__pycache__|\.[^/]+)(/|$)")
USERS, LIBRARY, PASSED, OURS = range(4)
"""The kinds of code: the user's, a library's, code that a call only passes through (the wrappers
of sites), and other code of this package, which does not belong to the user's call.
"""
_WRAPPERS = os.path.join(PACKAGE, "sites") + os.sep


def call_point(frame: types.FrameType) -> str:
    """Return the fault point of a call, as ``chaos.slow_call(target=...)`` names it.

    Return an empty text for a function that has no such name.
    """
    name = frame.f_code.co_qualname
    if "<" in name or name.rpartition(".")[2].startswith("__"):
        return ""
    return f"call {frame.f_globals.get('__name__', '')}:{name}"


def function_text(code: types.CodeType) -> str:
    """Return a function of the user: ``features.py:Loader.read``."""
    return f"{_relative(code.co_filename)}:{code.co_qualname}"


@functools.cache
def _relative(file: str) -> str:
    for folder in current_project().folders:
        with contextlib.suppress(ValueError):
            return Path(file).relative_to(folder).as_posix()
    return Path(file).name


@functools.cache
def is_test_code(code: types.CodeType) -> bool:
    """Return True for a test function, and for code in a conftest file."""
    file = Path(code.co_filename)
    if file.name == "conftest.py":
        return True
    is_tests = file.name.startswith("test_") or file.stem.endswith("_test")
    return is_tests and code.co_qualname.lower().startswith("test")


def user_frames(
    frame: types.FrameType | None, last: types.CodeType | None = None
) -> Iterator[types.FrameType]:
    """Yield the frames of the user's code from a frame on, the innermost first.

    Args:
        frame: The frame to begin with.
        last: The code of the last frame. Without it, the whole stack is searched.
    """
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            yield frame
        if frame.f_code is last:
            return
        frame = frame.f_back


class Survey:
    """The fault points that one trial visits.

    Attributes:
        touched: The fault points, each with the function of the user.
        cut: True if it ended before the trial.
    """

    def __init__(self) -> None:
        self.touched: set[tuple[str, str]] = set()
        self.cut = False
        self._calls = 0
        self._own: tuple[str, ...] = ()
        self._kinds: dict[types.CodeType, int] = {}
        self._closable: dict[types.CodeType, bool] = {}
        self._open: dict[int, list[tuple[types.FrameType, str, str]]] = {}

    @contextlib.contextmanager
    def of(self, controller: Controller) -> Iterator[None]:
        """Record what runs inside. Something that profiles already is left alone."""
        begin = controller.begin
        self._own = tuple(
            f"{text}{os.sep}"
            for path in controller.own
            for text in (str(path), str(path.resolve()))
        )
        # Storage operations know the path also for writers in C++ and Rust.
        controller.begin = functools.partial(self._begin, begin)  # type: ignore[method-assign]
        free = sys.getprofile() is None
        if free:
            threading.setprofile(self._start)
            sys.setprofile(self._watch(threading.get_ident()))
        _install()
        _surveys.append(self)
        try:
            yield
        finally:
            _surveys.remove(self)
            if free:
                sys.setprofile(None)
                threading.setprofile(None)
            del controller.begin
            self._open.clear()

    # -- files -------------------------------------------------------------------------------------

    def _begin(
        self, begin: Callable[..., Any], key: Key, payload: object = None, *more: Any
    ) -> Any:
        if isinstance(key, str) and key.startswith("storage.") and (path := _path_of(payload)):
            self._touch(file_point(path), sys._getframe(1))
        return begin(key, payload, *more)

    def _touch(self, point: str, frame: types.FrameType) -> None:
        function = next(user_frames(frame), None)
        if function is not None and not is_test_code(function.f_code):
            self.touched.add((point, function_text(function.f_code)))

    def announced(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Receive an audit event."""
        if inside() == INTERNAL_OPERATION:
            return
        if event.startswith(OUTSIDE):
            self._mark()
        elif event == "open" and arguments and isinstance(arguments[0], str):
            # Storage operations report the files in the test's own directories.
            given = os.path.abspath(arguments[0])
            path = "" if given.startswith(self._own) else _project_file(given)
            if path:
                self._touch(file_point(path), sys._getframe(1))

    # -- calls -------------------------------------------------------------------------------------

    def _mark(self) -> None:
        """Keep the innermost call of this thread that has left the project."""
        opened = self._open.get(threading.get_ident())
        if opened:
            self.touched.add(opened[-1][1:])

    def _start(self, *_: object) -> None:
        """Begin to watch a new thread, of which this is the first event."""
        if self in _surveys:
            sys.setprofile(self._watch(threading.get_ident()))

    def _watch(self, thread: int) -> Callable[[types.FrameType, str, object], None]:
        opened = self._open.setdefault(thread, [])
        kinds = self._kinds

        def watch(frame: types.FrameType, event: str, _: object) -> None:
            if event == "call":
                kind = kinds.get(frame.f_code)
                if kind is None:
                    kind = self._kind_of(frame.f_code)
                if kind == LIBRARY:
                    self._called(frame, opened)
                self._count()
            elif event == "return" and opened and opened[-1][0] is frame:
                opened.pop()

        return watch

    def _count(self) -> None:
        self._calls += 1
        if self._calls > MAX_CALLS:
            self.cut = True
            sys.setprofile(None)
            threading.setprofile(None)

    def _called(
        self, frame: types.FrameType, opened: list[tuple[types.FrameType, str, str]]
    ) -> None:
        """Note the call of a library's function, if the user's code has made it."""
        caller = frame.f_back
        while caller is not None and self._kind_of(caller.f_code) == PASSED:
            caller = caller.f_back
        if caller is None or self._kind_of(caller.f_code) != USERS or is_test_code(caller.f_code):
            return
        point = call_point(frame)
        if point:
            opened.append((frame, point, function_text(caller.f_code)))
            if self._is_closable(frame):
                self._mark()

    def _kind_of(self, code: types.CodeType) -> int:
        kind = self._kinds.get(code)
        if kind is None:
            kind = USERS if is_users(code.co_filename) else LIBRARY
            if code.co_filename.startswith((_WRAPPERS, "<")):
                kind = PASSED
            elif code.co_filename.startswith(PACKAGE):
                kind = OURS
            self._kinds[code] = kind
        return kind

    def _is_closable(self, frame: types.FrameType) -> bool:
        """Return True for a method of a third-party object that must be closed."""
        code = frame.f_code
        known = self._closable.get(code)
        if known is None:
            known = False
            if code.co_argcount and _is_third_party(code.co_filename):
                owner = frame.f_locals.get(code.co_varnames[0])
                cls = owner if isinstance(owner, type) else type(owner)
                known = _is_method_of(cls, code) and any(
                    callable(getattr(cls, name, None)) for name in ("close", "aclose")
                )
            self._closable[code] = known
        return known


def _is_method_of(cls: type, code: types.CodeType) -> bool:
    return any(code.co_qualname.startswith(f"{base.__qualname__}.") for base in cls.__mro__)


def _path_of(operation: object) -> str:
    path = getattr(operation, "path", "")
    return path if isinstance(path, str) else ""


def _project_file(path: str) -> str:
    """Return the path of a data file in the project, or an empty text for any other file."""
    project = current_project().folders
    if not project or path.endswith(CODE_FILES):
        return ""
    relative = os.path.relpath(path, project[0])
    if relative.startswith("..") or _HIDDEN.search(relative) or is_installed(path):
        return ""
    return Path(relative).as_posix()


@functools.cache
def _is_third_party(file: str) -> bool:
    """Return True for a file that is not part of the standard library."""
    if "site-packages" in file or "dist-packages" in file:
        return True
    return not file.startswith(tuple(f"{folder}{os.sep}" for folder in INTERPRETER))


_surveys: list[Survey] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _surveys and (event == "open" or event.startswith(OUTSIDE)):
        _surveys[-1].announced(event, arguments)


@functools.cache
def _install() -> None:
    """Install the hook once per process, because Python cannot remove an audit hook."""
    sys.addaudithook(_hook)
