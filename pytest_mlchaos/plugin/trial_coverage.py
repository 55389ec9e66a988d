"""Follow one trial for the fault coverage: its strikes, the code that ran, and what it visited."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import re
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ..core.checks import last_check
from ..core.coverage_entries import Guard, Recovery, Scope, Touch
from ..core.entries import Entry, StrikeEntry
from ..core.fault_points import file_point, key_point
from ..core.journal import Strike
from ..core.phases import listened_by
from ..core.recovery_blocks import Block, recovery_blocks
from ..core.results import Result
from ..core.sites import Key
from ..engine.controller import Controller
from ..engine.scopes import INTERNAL_OPERATION, within
from ..engine.survey import (
    Survey,
    call_point,
    function_text,
    is_test_code,
    user_frames,
)
from ..engine.thread_frames import thread_frames
from ..engine.user_code import PACKAGE, is_users, user_place
from .coverage_py import Contexts, find_contexts
from .marks import DeclaredFault

__all__ = ["StrikeFacts", "TestCoverage"]


@dataclasses.dataclass(frozen=True, slots=True)
class StrikeFacts:
    """Hold what the fault coverage knows of a strike. The fields are those of its journal entry."""

    point: str
    through: tuple[str, ...]
    function: str
    line: int
    result: int | None


EXCLUDED = re.compile(r"#\s*pragma:\s*no\s*cover")
"""The comment with which coverage.py leaves out code."""
FACTS = tuple(field.name for field in dataclasses.fields(StrikeFacts))


class TestCoverage:
    """The fault coverage of one test.

    Args:
        item: The test.
        root: The root directory of pytest.
    """

    def __init__(self, item: pytest.Function, root: Path) -> None:
        self._item = item
        self._root = root
        self._code = _test_code(item)
        self._contexts, self._no_lines = find_contexts()
        self._ordinary: dict[str, set[int]] = {}
        self._blocks: dict[tuple[str, Block], bool] = {}
        self._cut = False
        self._trials = 0
        self._trial: _Trial | None = None

    @contextlib.contextmanager
    def trial(self, controller: Controller, schedule: str) -> Iterator[None]:
        """Follow the trial that runs inside."""
        self._trials += 1
        name = f"{self._item.nodeid}|run|trial {self._trials}: {schedule or 'no fault'}"
        trial = self._trial = _Trial(controller, self._code, self._contexts, name)
        survey = Survey() if self._trials == 1 else None
        trial.survey = survey
        try:
            with (
                listened_by(trial),
                trial.followed(),
                survey.of(controller) if survey else contextlib.nullcontext(),
            ):
                yield
        finally:
            self._cut = self._cut or bool(survey and survey.cut)
            self._no_lines = self._no_lines or trial.problem
            self._add_lines(trial)

    def complete(self, strikes: Iterable[Strike]) -> list[StrikeEntry]:
        """Return the entries of the last trial's strikes, with all that is known of them."""
        found = []
        for strike in strikes:
            facts = self._trial.facts(strike) if self._trial is not None else None
            more = {} if facts is None else {one: getattr(facts, one) for one in FACTS}
            found.append(dataclasses.replace(StrikeEntry.of(strike), **more))
        return found

    def visited(self) -> list[Entry]:
        """Return the entries of the last trial: the fault points that it visited, and exceptions."""
        if self._trial is None:
            return []
        touched = sorted(self._trial.survey.touched) if self._trial.survey is not None else []
        return [
            *(Touch(point=point, function=function) for point, function in touched),
            *(
                Guard(error=error, place=place, injected=injected)
                for error, place, injected in sorted(self._trial.guards)
            ),
        ]

    def ended(self, declared: list[DeclaredFault]) -> list[Entry]:
        """Return the entries of the whole test."""
        blocks = [
            Recovery(
                file=self._shown(file),
                line=block.line,
                what=block.what,
                function=block.function,
                reached=reached,
            )
            for (file, block), reached in self._blocks.items()
        ]
        points = {(one.fault.name, key_point(one.fault.key)) for one in declared}
        scope = Scope(
            declared=tuple(sorted(points)),
            last_check=self._last_check(),
            no_lines=self._no_lines,
            cut=self._cut,
        )
        return [scope, *sorted(blocks, key=lambda one: (one.file, one.line, one.what))]

    def _last_check(self) -> int:
        if self._code is None:
            return 0
        try:
            source = Path(self._code.co_filename).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return 0
        return last_check(source, self._code.co_firstlineno, _recorded_methods())

    def _shown(self, file: str) -> str:
        path = Path(file)
        return (
            path.relative_to(self._root).as_posix()
            if path.is_relative_to(self._root)
            else path.name
        )

    # -- recovery code -----------------------------------------------------------------------------

    def _add_lines(self, trial: _Trial) -> None:
        """Decide which recovery code the trial's faults have reached."""
        quiet, struck = trial.lines()
        for file, lines in quiet.items():
            self._ordinary.setdefault(file, set()).update(lines)
        for file in sorted({*quiet, *struck}):
            ordinary, after = self._ordinary.get(file, set()), struck.get(file, set())
            for block in _blocks_of(file):
                reached = trial.reached(file, block, after, ordinary)
                if reached and block.what.startswith("except"):
                    place = f"{Path(file).name}:{block.line}"
                    trial.guards.add((block.what, place, False))
                self._blocks[file, block] = self._blocks.get((file, block), False) or reached


class _Trial:
    """The listener of one trial."""

    def __init__(
        self,
        controller: Controller,
        code: types.CodeType | None,
        contexts: Contexts | None,
        name: str,
    ) -> None:
        self._controller = controller
        self._code = code
        self._contexts = contexts
        self._names = {False: name, True: f"{name}, after a strike"}
        self._pid = os.getpid()
        self._found: list[tuple[Strike, StrikeFacts]] = []
        self._has_struck = False
        # The facts of strikes inside a subject.
        self._inside: set[int] = set()
        self._phases: list[bool] = []
        self._lock = threading.Lock()
        self._context: bool | None = None
        # Lines of the user's code that were running at a strike, or that an error left.
        self._left: set[tuple[str, int]] = set()
        self._suppressed: set[tuple[str, int]] = set()
        self._lines: dict[bool, Mapping[str, set[int]]] = {False: {}, True: {}}
        self.survey: Survey | None = None
        # The exceptions that came up after a strike: type, place, and if a fault raised it.
        self.guards: set[tuple[str, str, bool]] = set()
        self.problem = ""

    # -- what phases announce ----------------------------------------------------------------------

    def struck(self, strike: Strike) -> None:
        """Keep where the code was at a strike."""
        if os.getpid() != self._pid:
            return
        frame = sys._getframe(2)
        test = self._test_frame(frame)
        users = list(user_frames(frame, self._code))
        self._left.update((one.f_code.co_filename, one.f_lineno) for one in users)
        own = [one for one in users if not is_test_code(one.f_code)]
        keys = {one.text: one.fault.key for one in self._controller.scheduled}
        facts = StrikeFacts(
            point=_point(strike, keys.get(strike.fault)),
            through=tuple(sorted({*_calls_out(frame, self._code)})),
            function=function_text(own[0].f_code) if own else "",
            line=0 if test is None else test.f_lineno,
            result=len(self._controller.results),
        )
        if self._controller.inside:
            self._inside.add(id(facts))
        self._found.append((strike, facts))
        self._has_struck = True
        self._switch()

    def quiet(self, on: bool) -> None:
        """Follow the start and the end of code in which no fault strikes."""
        self._phase(on, False)

    def faulted(self, on: bool) -> None:
        """Follow the start and the end of code that meets a crash state."""
        self._phase(on, True)

    def raised(self, error: BaseException) -> None:
        """Keep the lines that an error has left, if a fault struck before."""
        if not self._is_after:
            return
        place = user_place(error)
        if isinstance(error, Exception):
            injected = self._controller.is_injected(error)
            self.guards.add((type(error).__qualname__, place, injected))
        seen: set[int] = set()
        waiting: list[BaseException | None] = [error]
        while waiting:
            one = waiting.pop()
            if one is None or id(one) in seen:
                continue
            seen.add(id(one))
            waiting += [one.__cause__, one.__context__]
            trace = one.__traceback__
            while trace is not None:
                self._left.add((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
                trace = trace.tb_next

    def suppressed(self, file: str, line: int) -> None:
        """Keep a ``with contextlib.suppress`` that has ended an error."""
        if self._is_after:
            self._suppressed.add((file, line))

    # -- the trial ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Keep the lines that run inside."""
        original = contextlib.suppress.__exit__
        contextlib.suppress.__exit__ = _noting(original, self)  # type: ignore
        expecting = type(pytest.raises(Exception))
        leave = expecting.__exit__
        expecting.__exit__ = _noting_expected(leave, self)  # type: ignore
        before = self._switch()
        try:
            yield
        except BaseException as error:
            self.raised(error)
            raise
        finally:
            contextlib.suppress.__exit__ = original  # type: ignore[method-assign]
            expecting.__exit__ = leave  # type: ignore[method-assign]
            self._phases.clear()
            for injected in self._controller.injected:
                self.raised(injected)
            self._end(before)

    def facts(self, strike: Strike) -> StrikeFacts | None:
        """Return what is known of a strike."""
        found = next((facts for one, facts in self._found if one is strike), None)
        if found is None or id(found) in self._inside:
            return found
        # Requests do not run inside a subject. A load has the strikes since the one before it.
        results = self._controller.results[found.result : (found.result or 0) + 1]
        is_load = any(one.what == "service.drive" for one in results)
        return found if is_load else dataclasses.replace(found, result=None)

    def lines(self) -> tuple[Mapping[str, set[int]], Mapping[str, set[int]]]:
        """Return the lines that ran before a strike, and those after one, by file."""
        return self._lines[False], self._lines[True]

    def reached(self, file: str, block: Block, after: set[int], ordinary: set[int]) -> bool:
        """Return True if a fault has reached a block.

        It ran after a strike. If it runs without faults as well, a fault must also have struck
        inside the code that it guards, or the error of a fault must have passed through it.
        """
        if block.by_exit:
            return (file, block.line) in self._suppressed
        lines = set(range(block.lines[0], block.lines[1] + 1))
        if not lines & after:
            return False
        if not block.always_runs and not lines & ordinary:
            return True
        if block.guarded is None:
            return False
        first, last = block.guarded
        return any(name == file and first <= line <= last for name, line in self._left)

    @property
    def _is_after(self) -> bool:
        return self._phases[-1] if self._phases else self._has_struck

    def _phase(self, on: bool, faulted: bool) -> None:
        if os.getpid() != self._pid:
            return
        if on:
            self._phases.append(faulted)
        elif self._phases:
            self._phases.pop()
        self._switch()

    def _switch(self) -> str:
        """Switch coverage.py to the context of the present phase. Return the name before."""
        with self._lock:
            after = self._is_after
            if self._contexts is None or after == self._context:
                return ""
            self._context = after
            try:
                # coverage.py writes to its own database.
                with within(INTERNAL_OPERATION):
                    return self._contexts.switch(self._names[after])
            except Exception as error:  # noqa: BLE001  # a measurement must not fail the test
                self._give_up(error)
                return ""

    def _end(self, before: str) -> None:
        if self._contexts is None:
            return
        try:
            with within(INTERNAL_OPERATION):
                self._contexts.switch(before)
                for after, name in self._names.items():
                    self._lines[after] = self._contexts.lines(name, is_users)
        except Exception as error:  # noqa: BLE001  # a measurement must not fail the test
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._contexts = None
        self.problem = (
            f"coverage.py raised {type(error).__name__}, so recovery code was not followed"
        )

    def _test_frame(self, frame: types.FrameType | None) -> types.FrameType | None:
        """Return the frame of the test function, also for a strike in a different thread."""
        found = self._search(frame)
        if found is None:
            found = self._search(thread_frames().get(threading.main_thread().ident or 0))
        return found

    def _search(self, frame: types.FrameType | None) -> types.FrameType | None:
        while frame is not None and frame.f_code is not self._code:
            frame = frame.f_back
        return frame


def _test_code(item: pytest.Function) -> types.CodeType | None:
    """Return the code of the user's test function, below its decorators."""
    function = item.obj
    given = getattr(function, "hypothesis", None)
    function = getattr(given, "inner_test", function)
    return getattr(inspect.unwrap(function), "__code__", None)


def _point(strike: Strike, key: Key | None) -> str:
    path = strike.details.get("path")
    if strike.site.partition(".")[0] == "storage" and isinstance(path, str):
        return file_point(path)
    return key_point(strike.site if key is None else key)


def _calls_out(frame: types.FrameType | None, last: types.CodeType | None) -> Iterator[str]:
    """Yield the calls of the stack that leave the user's code, up to the test function."""
    inner: types.FrameType | None = None
    while frame is not None:
        code = frame.f_code
        if is_users(code.co_filename):
            if inner is not None and not is_test_code(code) and (point := call_point(inner)):
                yield point
            inner = None
        elif not code.co_filename.startswith(PACKAGE):
            inner = frame
        if code is last:
            return
        frame = frame.f_back


def _noting(original: Callable[..., Any], trial: _Trial) -> Callable[..., Any]:
    """Return ``contextlib.suppress.__exit__``, with a note of the errors that it ends."""

    @functools.wraps(original)
    def leave(self: object, kind: object, error: object, trace: object) -> Any:
        ended = original(self, kind, error, trace)
        if ended and error is not None:
            frame = sys._getframe(1)
            trial.suppressed(frame.f_code.co_filename, frame.f_lineno)
        return ended

    return leave


def _noting_expected(original: Callable[..., Any], trial: _Trial) -> Callable[..., Any]:
    """Return the ``__exit__`` of ``pytest.raises``, with a note of the exception."""

    @functools.wraps(original)
    def leave(self: object, kind: object, error: BaseException | None, *more: object) -> Any:
        if error is not None:
            trial.raised(error)
        return original(self, kind, error, *more)

    return leave


@functools.cache
def _blocks_of(file: str) -> tuple[Block, ...]:
    """Return the recovery code of a file that belongs to the project, not to its tests."""
    path = Path(file)
    if path.name == "conftest.py":
        return ()
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ()
    blocks, lines = recovery_blocks(source), source.splitlines()
    is_tests = path.name.startswith("test_") or path.stem.endswith("_test")
    return tuple(
        block
        for block in blocks
        if not (is_tests and block.function.lower().startswith("test"))
        and not EXCLUDED.search(lines[block.line - 1])
    )


@functools.cache
def _recorded_methods() -> frozenset[str]:
    """Return the names of the assertions of results, whose calls are recorded."""
    found: set[str] = set()
    waiting: list[type] = [Result]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        found |= {name for name in vars(cls) if name.startswith("assert_")}
    return frozenset(found)
