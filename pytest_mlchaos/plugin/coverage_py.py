"""Ask coverage.py which lines ran before a fault struck, and which after it.

Projects that care about coverage run it already, its tracer is written in C, and it keeps lines by
context. So this plugin brings no tracer of its own. It never starts coverage.py, and it restores
the context that pytest-cov or the user has set.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Contexts", "find_contexts"]

NOT_RUNNING = (
    "coverage.py does not measure this session. Run pytest with --cov (pytest-cov), or under "
    "`coverage run`, to list the recovery code that no fault has reached"
)
NO_CONTEXTS = (
    "coverage.py's core sysmon does not keep lines by context. Set COVERAGE_CORE=ctrace to list "
    "the recovery code that no fault has reached"
)
TAKEN = (
    "coverage.py's option dynamic_context switches the contexts. Remove it to list the recovery "
    "code that no fault has reached (--cov-context=test of pytest-cov may stay)"
)


class Contexts:
    """The contexts of the running coverage measurement."""

    def __init__(self, coverage: Any) -> None:
        self._coverage = coverage
        self._static = coverage.get_option("run:context") or ""

    def switch(self, name: str) -> str:
        """Let the lines that run from now on belong to a context, and return the one before."""
        before: str | None = self._coverage.switch_context(name)
        # A static context comes first, and coverage.py would add it again.
        return (before or "").removeprefix(self._static).removeprefix("|")

    def lines(self, name: str, wanted: Callable[[str], bool]) -> Mapping[str, set[int]]:
        """Return the lines that ran in a context, by file. Switch to a different one before.

        Args:
            name: The context.
            wanted: A predicate on the path of a file.
        """
        # It repeats warnings, for example about packages that no test has imported yet.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = self._coverage.get_data()
        data.set_query_context(f"{self._static}|{name}" if self._static else name)
        try:
            files = [file for file in data.measured_files() if wanted(file)]
            found = {file: set(data.lines(file) or ()) for file in files}
        finally:
            data.set_query_contexts(None)
        return {file: lines for file, lines in found.items() if lines}


def find_contexts() -> tuple[Contexts | None, str]:
    """Return the contexts, or None and the reason why there are none, as a sentence."""
    coverage = sys.modules.get("coverage")
    running = coverage.Coverage.current() if coverage is not None else None
    if running is None:
        return None, NOT_RUNNING
    facts = dict(running.sys_info())
    if facts.get("core", facts.get("tracer")) == "SysMonitor":
        return None, NO_CONTEXTS
    if running.get_option("run:dynamic_context") or _switchers(facts):
        return None, TAKEN
    return Contexts(running), ""


def _switchers(facts: Mapping[str, Any]) -> bool:
    """Return True if a plugin of coverage.py switches contexts."""
    found = facts.get("plugins.context_switchers", ())
    return bool(found) and found not in ("-none-", ["-none-"])
