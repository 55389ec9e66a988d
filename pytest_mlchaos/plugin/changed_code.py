"""Decide if the code of a test has changed since the test ran.

A test depends on its file, its conftest files and the modules of the project that they import.
If the session measures coverage by test (``--cov-context=test`` of pytest-cov), files that only
other tests executed are left out. The contexts of coverage.py are a public interface. The database
of pytest-testmon is not, and that plugin would select tests by itself.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..core.project_imports import project_files

__all__ = ["Code", "ExecutedFiles", "ProcessCounter", "executed_files"]

_STARTS = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen"})
"""The audit events of Python before a process starts."""


class Code:
    """The code of the project, as it is now.

    Args:
        root: The root directory of pytest.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.files_of = functools.cache(self._files_of)
        self._content = functools.cache(_read)

    def _files_of(self, test_file: str) -> tuple[str, ...]:
        """Return the files that a test file depends on, relative to the root if possible."""
        found = project_files(self._root / test_file, self._root, _text)
        return tuple(sorted(os.path.relpath(path, self._root) for path in found))

    def digest(self, files: Collection[str]) -> str:
        """Return a digest of these files, and of this plugin's version."""
        digest = hashlib.sha256(importlib.metadata.version("pytest-mlchaos").encode())
        for file in sorted(files):
            content = self._content(self._root / file)
            found = "missing" if content is None else hashlib.sha256(content).hexdigest()
            digest.update(f"{file}\0{found}\0".encode())
        return digest.hexdigest()[:32]

    def has_changed(self, nodeid: str, known: Mapping[str, Any]) -> bool:
        """Return True unless the files of a test are those of its last run, to its end.

        Args:
            nodeid: The test.
            known: What is known of that run: ``digest``, and ``files`` if they were measured.
        """
        files, digest = known.get("files"), known.get("digest")
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            files = list(self.files_of(test_file(nodeid)))
        return not files or not isinstance(digest, str) or digest != self.digest(files)


def test_file(nodeid: str) -> str:
    """Return the file of a test, relative to the root."""
    return nodeid.partition("::")[0]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _text(path: Path) -> str | None:
    content = _read(path)
    return None if content is None else content.decode("utf-8", errors="replace")


class ProcessCounter:
    """Count the processes that start. coverage.py does not measure what they execute."""

    def __init__(self) -> None:
        self.count = 0
        self._events = {*_STARTS, "mlchaos.process"}  # processes.child.PROCESS_EVENT
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event in self._events:
            self.count += 1


class ExecutedFiles:
    """The files that tests executed, as coverage.py has measured them.

    Args:
        by_test: The files by the id of a test, relative to the root.
    """

    def __init__(self, by_test: Mapping[str, Collection[str]]) -> None:
        self._by_test = by_test
        self._by_any = {file for files in by_test.values() for file in files}

    def narrow(self, nodeid: str, files: Collection[str]) -> list[str] | None:
        """Return the files of a test without those that only other tests executed.

        Files that no test executed stay, because they may hold constants. Return None if the test
        was not measured.
        """
        own = self._by_test.get(nodeid)
        if not own:
            return None
        return sorted({*own, *(file for file in files if file not in self._by_any)})


def executed_files(root: Path, since: float, nodeids: Collection[str]) -> ExecutedFiles:
    """Return the files that the tests of this session executed, if coverage.py has measured them.

    Args:
        root: The root directory of pytest.
        since: The start of the session. Data from before is not used.
        nodeids: The tests.
    """
    by_test: dict[str, set[str]] = {}
    data = _measured(since)
    if data is not None:
        known = frozenset(nodeids)
        for file in data.measured_files():
            path = os.path.relpath(file, root)
            contexts = {one for names in data.contexts_by_lineno(file).values() for one in names}
            for nodeid in {_test_of(context, known) for context in contexts} - {""}:
                by_test.setdefault(nodeid, set()).add(path)
    return ExecutedFiles(by_test)


def _test_of(context: str, known: Collection[str]) -> str:
    """Return the test of a context such as ``test_a.py::test_b|run``, or an empty text.

    A static context comes before it. The id of a test may contain the separator.
    """
    parts = context.split("|")
    for start in (0, 1):
        for end in range(len(parts), start, -1):
            if (found := "|".join(parts[start:end])) in known:
                return found
    return ""


def _measured(since: float) -> Any:
    """Return the data of coverage.py for this session, or None."""
    coverage = sys.modules.get("coverage")
    if coverage is None:
        return None
    try:
        running = coverage.Coverage.current()
        if running is not None:
            return running.get_data()
        found = coverage.Coverage()  # pytest-cov has written its data by now
        file = found.get_option("run:data_file")
        if os.path.getmtime(str(file)) < since:
            return None
        found.load()
        return found.get_data()
    except (OSError, coverage.CoverageException):
        return None
