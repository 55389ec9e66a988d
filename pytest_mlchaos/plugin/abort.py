"""End the session if a condition says so: memory, disk space, or a callable of the user.

A thread checks the conditions about once a second while a chaos test runs. If one is met, it
interrupts the main thread as Ctrl-C does, so that everything is undone on the way out. The session
then ends with its own exit code. The interrupted test has no verdict.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from time import monotonic  # by name, so that a virtual clock does not reach it
from typing import Any, NamedTuple

import pytest

from ..core.entries import Line
from ..core.policy import Policy
from ..core.policy_entries import Abort
from ..core.validation import size_text
from ..errors import BadArgument

__all__ = ["EXIT_CODE", "AbortWatch", "Condition", "Verdicts", "conditions_of"]

EXIT_CODE = 75
"""The exit code of an aborted session: EX_TEMPFAIL of sysexits.h, "try again later"."""
PERIOD_SECONDS = 1.0
REPEAT_SECONDS = 10.0
"""The seconds until a test that is still running is interrupted again.

It may have swallowed the first interruption. Undoing its faults takes time, too.
"""
READY = ("min_free_memory", "min_free_disk")
"""The conditions that need no function of the user."""


class Condition(NamedTuple):
    """A condition that may end the session.

    Attributes:
        name: Its name, for messages.
        check: A function that returns the reason to stop, or "".
    """

    name: str
    check: Callable[[], str]


def conditions_of(config: pytest.Config, policy: Policy) -> list[Condition]:
    """Return the conditions of a policy, and that of the hook if a plugin implements it.

    Raises:
        BadArgument: A callable of the policy cannot be imported.
    """
    found = [Condition(place, _checked(_import(place, where))) for place, where in policy.abort]
    if (memory := policy.min_free_memory) is not None:
        if free_memory() is None:
            raise BadArgument("min_free_memory: the free memory of this system cannot be read")
        found.append(
            Condition("min_free_memory", lambda: _too_low(free_memory(), memory, "memory"))
        )
    if (disk := policy.min_free_disk) is not None:
        folders = [Path.cwd(), Path(config.getoption("basetemp") or _temporary())]
        check = lambda: _too_low(min(map(free_disk, folders)), disk, "disk space")  # noqa: E731
        found.append(Condition("min_free_disk", check))
    if config.hook.pytest_mlchaos_abort.get_hookimpls():
        found.append(Condition("pytest_mlchaos_abort", lambda: _of_hook(config)))
    return found


def _temporary() -> str:
    import tempfile

    return tempfile.gettempdir()


def _of_hook(config: pytest.Config) -> str:
    return _reason(config.hook.pytest_mlchaos_abort(config=config), healthy=None)


def _import(place: str, where: str) -> Callable[[], object]:
    """Return the function at ``module:name``. The current directory is searched, too."""
    module, _, name = place.partition(":")
    before = list(sys.path)
    try:
        sys.path.insert(0, os.getcwd())
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise BadArgument(f'{where} = "{place}" cannot be imported: {error!r}') from error
    finally:
        sys.path[:] = before
    if not callable(found):
        raise BadArgument(f'{where} = "{place}" must be a function, got {type(found).__name__}')
    function: Callable[[], object] = found
    return function


def _checked(function: Callable[[], object]) -> Callable[[], str]:
    return lambda: _reason(function(), healthy=True)


def _reason(found: object, *, healthy: bool | None) -> str:
    """Return the reason to stop in what a user's function returned, or "" to go on."""
    if found is None or found is healthy or found == "":
        return ""
    if isinstance(found, str):
        return found
    if found is False:
        return "it returned False"
    return f"it must return True, False or a reason, and returned {type(found).__name__}"


def _too_low(free: int | None, least: int, what: str) -> str:
    if free is None or free >= least:
        return ""
    return f"{size_text(free)} of {what} are free, and the policy asks for {size_text(least)}"


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk of a folder, or of the nearest one above that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def free_memory() -> int | None:
    """Return the bytes of memory that are available, or None if that is not known.

    A limit of the control group counts, too.
    """
    found = [one for one in (_of_system(), _of_group()) if one is not None]
    return min(found, default=None)


def _of_system() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import psutil  # on systems without /proc
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _of_group() -> int | None:
    """Return the bytes below the limit of the control group, with the caches that it can drop."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        droppable = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return int(limit) - used + droppable
    except (OSError, ValueError):
        return None


class AbortWatch:
    """Check the conditions of a session, and end it if one is met."""

    def __init__(self, config: pytest.Config, conditions: list[Condition]) -> None:
        self._config = config
        self._conditions = conditions
        self._wake = threading.Event()
        self._changed = threading.Lock()
        self._item: pytest.Item | None = None  # the test that is running
        self._ended = False
        self._noted = False  # True once the journal has the end
        self._thread: threading.Thread | None = None
        self.met: tuple[str, str] | None = None

    def __enter__(self) -> None:
        if self._conditions:
            self._thread = threading.Thread(target=self._watch, name="mlchaos-abort", daemon=True)
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        with self._changed:
            self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(PERIOD_SECONDS)
        if isinstance(error, KeyboardInterrupt):
            self._leave(error)

    def _first(self) -> tuple[str, str] | None:
        for condition in self._conditions:
            try:
                reason = condition.check()
            except Exception as error:  # noqa: BLE001  # a user's function may raise anything
                reason = f"it raised {error!r}"
            if reason:
                return condition.name, reason
        return None

    def check(self, item: pytest.Item) -> None:
        """End the session before a test if a condition is met."""
        if self._conditions and self.met is None:
            self.met = self._first()
        self._note(item)
        self._leave()

    def _leave(self, cause: BaseException | None = None) -> None:
        if self.met is not None:
            name, reason = self.met
            raise pytest.exit.Exception(
                f"mlchaos: the session was aborted by {name}: {reason}. All faults are undone. "
                f"This is not a verdict on a test",
                EXIT_CODE,
            ) from cause

    @contextlib.contextmanager
    def watching(self, item: pytest.Item) -> Iterator[None]:
        """Let the thread interrupt the test that runs inside."""
        self._item = item
        try:
            yield
        except (KeyboardInterrupt, pytest.exit.Exception) as error:
            self._note(item)
            self._leave(error)
            raise
        finally:
            self._item = None
        self._note(item)
        self._leave()

    def _watch(self) -> None:
        # The main process of xdist runs no test, and must end its workers.
        leads = self._config.pluginmanager.has_plugin("dsession")
        again = 0.0  # the time from which it may be interrupted again
        while not self._wake.wait(PERIOD_SECONDS):
            if self.met is None:
                self.met = self._first()
            with self._changed:
                runs = (self._item is not None or leads) and not self._ended
                if self.met is not None and runs and monotonic() >= again:
                    again = monotonic() + REPEAT_SECONDS
                    _interrupt_main()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """End the session after the plugin has undone its faults."""
        try:
            return (yield)
        except KeyboardInterrupt as error:
            self._leave(error)
            raise

    def _note(self, item: pytest.Item) -> None:
        """Add the end of the session to the journal. pytest makes no report of the test."""
        collector = self._config.pluginmanager.get_plugin("mlchaos-collector")
        if self.met is not None and collector is not None and not self._noted:
            self._noted = True
            # The reason of a user's function may hold data.
            name, reason = self.met
            entry = Abort(condition=name, reason=reason if name in READY else "")
            collector.add([Line(item.nodeid, 0, entry)])


class Verdicts:
    """Turn the outcome of a test into an interruption, before the plugin can judge it."""

    def __init__(self, watch: AbortWatch) -> None:
        self._watch = watch

    @pytest.hookimpl(wrapper=True, trylast=True)  # inside of all other wrappers
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        """Replace the outcome if the session ends."""
        try:
            result = yield
        except BaseException as error:
            if self._watch.met is not None:
                raise KeyboardInterrupt from error
            raise
        if self._watch.met is not None:
            raise KeyboardInterrupt
        return result


def _interrupt_main() -> None:
    """Interrupt the main thread as Ctrl-C does, also in a system call that waits."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()
