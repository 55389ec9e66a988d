"""How far an exploration has come, for the report of one that is stopped."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from time import perf_counter  # the real clock, whatever the subject is shown

__all__ = ["Progress"]


class Progress:
    """The phase that an exploration is in, and how long the states took that it has tried."""

    def __init__(self) -> None:
        self._doing: dict[int, tuple[str, float]] = {}
        self._took: list[tuple[float, str]] = []

    @contextlib.contextmanager
    def doing(self, phase: str, state: str = "") -> Iterator[None]:
        """Note the phase, for example ``the golden run``. What raises stays noted. ``state``: the crash state that is tried in it."""
        thread, start = threading.get_ident(), perf_counter()
        self._doing[thread] = phase, start
        yield
        del self._doing[thread]
        if state:
            self._took.append((perf_counter() - start, state))

    @property
    def tried(self) -> str:
        """How many states were tried, and the slowest of them. The time of comparing a run with the golden one is part of it."""
        if not self._took:
            return "no crash state was tried"
        seconds, slowest = max(self._took)
        count = len(self._took)
        return f"{count} crash state{' was' if count == 1 else 's were'} tried, the slowest of them {slowest} in {seconds:.1f} s"

    def __str__(self) -> str:
        now = perf_counter()
        phases = [f"{phase}, for {now - start:.1f} s" for phase, start in self._doing.values()]
        return f"{'; '.join(phases) or 'between two runs'}; {self.tried}"
