"""``python -m pytest_mlchaos run``: one session on many workers.

1. Read the options (``options.py``), and find the engine (``engines.py``).
2. Start the workers (``local.py``, ``ray_actors.py``, ``dask_client.py``). Each has a warm process
   (``warm_process.py``), which forks a pytest per share.
3. Hand out shares until none is left (``engine.py``), as ``allocation.py`` decides.
4. Join the journals of the shares. That gives the report and the verdict.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..core.entries import parse_line
from ..core.shard_entries import ShardEntry
from ..core.validation import count_text
from ..reports.journal_reader import timings_path
from ..reports.outputs import check_writable
from .allocation import Allocation, Share
from .engine import ClusterError, Done, Engine, conduct
from .engines import engine_of
from .options import RunOptions
from .progress import ProgressLine

__all__ = ["INTERRUPTED", "Merge", "run_session"]

INTERRUPTED = 2
"""The exit code after Ctrl-C, as pytest's."""
_ENDED = (0, 1, 5)
"""The exit codes of a pytest that ran its share: all passed, some failed, no test."""
_WRONG_FOR_ALL = (2, 4)
"""The exit codes of a pytest that no worker can run: an error of collection, wrong arguments."""

Merge = Callable[[Sequence[Path], RunOptions], int]
"""Joins journals, prints the report, and returns the exit code."""


class _WrongForAll(Exception):
    """pytest could not run a share for a reason that every worker has."""

    def __init__(self, done: Done) -> None:
        super().__init__(done.output)
        self.done = done


class _Shares:
    """The journals that came home, and what pytest wrote where it did not end well."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.failed: dict[str, str] = {}
        self.last_problem = ""

    def keep(self, done: Done, share: Share) -> str | None:
        """Store the journal of a share. Return its path, or None if it must be run again."""
        if done.exit_code in _WRONG_FOR_ALL:
            raise _WrongForAll(done)
        entry = _end_of(done.journal)
        if done.exit_code not in _ENDED or entry is None:
            cut = " and without the end of its journal" if entry is None else ""
            self.last_problem = f"pytest ended with exit code {done.exit_code}{cut} in shard {share}:\n{done.output}"
            return None
        path = self._folder / f"shard-{share.shards[0]:05}-{share.attempt}-{done.worker[7:]}.jsonl"
        path.write_bytes(done.journal)
        timings_path(path).write_bytes(done.timings)
        if entry.failed:
            self.failed[str(path)] = done.output
        return str(path)


def _end_of(journal: bytes) -> ShardEntry | None:
    """Return the last line of a journal if its session ended, or None if it was cut off."""
    last = journal.strip().rpartition(b"\n")[2]
    try:
        line = parse_line(last.decode())
    except ValueError:
        return None
    found = None if line is None else line.entry
    return found if isinstance(found, ShardEntry) and found.lines is not None else None


def run_session(options: RunOptions, merge: Merge) -> int:
    """Run the session, and return the exit code.

    Args:
        options: The options.
        merge: Joins the journals.

    Raises:
        MissingExtra: The library of the engine is not installed.
        BadArgument: An output cannot be written.
    """
    for option, target in (("--mlchaos-journal", options.journal), ("--report", options.report)):
        if target is not None:
            check_writable(option, str(target), "a file")
    engine = engine_of(options.engine, options.session, options.address)
    with tempfile.TemporaryDirectory(prefix="mlchaos-run-") as temporary:
        folder = Path(temporary) if options.keep is None else options.keep
        folder.mkdir(parents=True, exist_ok=True)
        return _run(options, engine, _Shares(folder), merge)


def _run(options: RunOptions, engine: Engine, shares: _Shares, merge: Merge) -> int:
    allocation = Allocation(options.shards, options.workers, options.attempts)
    line = ProgressLine(allocation)
    problem = ""
    try:
        try:
            engine.start(options.workers)
            conduct(engine, allocation, shares.keep, line)
        finally:
            engine.stop()
            line.end()
    except KeyboardInterrupt:
        _say(f"interrupted: {_how_far(allocation)}, so this run is INCONCLUSIVE")
        return INTERRUPTED
    except _WrongForAll as wrong:
        _say(wrong.done.output.rstrip())
        _say(f"error: pytest ended with exit code {wrong.done.exit_code} in {wrong.done.worker}")
        return wrong.done.exit_code
    except ClusterError as error:
        problem = f"--on={options.engine}: {error}"
    if allocation.given_up and shares.last_problem:
        _say(shares.last_problem.rstrip())
    if problem:
        _say(f"error: {problem}")
    journals = [Path(journal) for journal in allocation.journals()]
    if not journals:
        _say(f"INCONCLUSIVE: {_how_far(allocation)}")
        return 1
    for journal in journals:
        if str(journal) in shares.failed:  # the journal has only the names of tests without faults
            _say(shares.failed[str(journal)].rstrip())
    return merge(journals, options) or int(bool(problem))


def _how_far(allocation: Allocation) -> str:
    return f"{len(allocation.done)} of {count_text(allocation.count, 'shard')} ended"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
