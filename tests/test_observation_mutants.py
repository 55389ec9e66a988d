"""Plant wrong skips in the rule, and require that a test fails for each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_mlchaos
from pytest_mlchaos.engine import inotify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not inotify.available(), reason="opens are seen by Linux' inotify"),
]
PACKAGE = Path(pytest_mlchaos.__file__).parent
HERE = Path(__file__).parent
RULE, OBSERVER, STATS = "observations", "recording/observer", "recording/stat_log"
FOLLOWED = "recording/followed_files"
READS, EARLY, SWEEP, EXPLORE = "recording/read_log", "early_end", "sweep", "explore"

MUTANTS = [
    # the rule
    (RULE, "(path, *_kind(node))", "(path,)"),
    (RULE, "frozenset((path, *_kind(node)) for path, node in tree.items())", "len(tree)"),
    (RULE, '("link", node.target)', '("link",)'),
    (RULE, "(type(node).__name__, node.mode)", "(type(node).__name__,)"),
    (RULE, "(type(node).__name__, node.mode)", '("node", node.mode)'),
    (RULE, "one.keys() if observed.asked is None", "frozenset() if observed.asked is None"),
    (RULE, "observed.read | (observed.kept & frozenset(compared))", "observed.read"),
    (RULE, "observed.read | (observed.kept & frozenset(compared))", "observed.kept"),
    (RULE, "all(one.get(path) == other.get(path) for path in opened)", "True"),
    (RULE, "all(_size(one[path]) == _size(other[path]) for path in asked)", "True"),
    (RULE, "_times(one, asked | observed.read) == _times(other, asked | observed.read)", "True"),
    (
        RULE,
        "_times(one, asked | observed.read) == _times(other, asked | observed.read)",
        "_times(one, asked) == _times(other, asked)",
    ),
    (
        RULE,
        "_times(one, asked | observed.read) == _times(other, asked | observed.read)",
        "_times(one, observed.read) == _times(other, observed.read)",
    ),
    (RULE, "node.content.size if isinstance(node, File) else 0", "0"),
    (RULE, "(File, Folder))", "File)"),
    # what opens a file
    (OBSERVER, "file.writers += file.opened", "file.writers += 0"),
    (OBSERVER, "self._look(file, file.opened)", "self._look(file, False)"),
    (OBSERVER, "file.opened or bool(mask & inotify.ACCESS)", "file.opened"),
    (OBSERVER, "            file.looked = True", "            file.looked = False"),
    (OBSERVER, "if file.writers or file.opened:", "if False:"),
    (
        OBSERVER,
        "if file.was_truncated(status) and (file.writers == 1 or not file.looked):",
        "if True:",
    ),
    (OBSERVER, "(file.writers == 1 or not file.looked)", "True"),
    (
        OBSERVER,
        "except OSError:  # its directory was renamed\n                self._read.add(file.path)",
        "except OSError:",
    ),
    (OBSERVER, "return self.marked and (", "return True or ("),
    (OBSERVER, "return self.marked and (", "return ("),
    (OBSERVER, "if not file.opened and not file.writers:", "if False:"),
    (OBSERVER, "elif not flags & os.O_TRUNC:", "elif False:"),
    (OBSERVER, "elif os.path.isabs(arguments[0]):", "else:"),
    (OBSERVER, "file.truncating and mask & inotify.MODIFY", "file.truncating"),
    (OBSERVER, '("os.truncate", "os.link")', '("os.truncate",)'),
    (FOLLOWED, "self.files[key] = moved", "pass"),
    (
        OBSERVER,
        "self._read.update(file.path for file in self._files.values() if file.opened)",
        "pass",
    ),
    (
        OBSERVER,
        "self._read.update(file.path for file in self._followed.gone)",
        "pass",
    ),
    (OBSERVER, "frozenset(file.path for file in self._files.values()),", "frozenset(),"),
    (READS, "                if not entry.is_symlink():", "                if status.st_size:"),
    (READS, "self._watch(entry.path, inside, events)", "pass"),
    (READS, "if not self._overflown:", "if True:"),
    (READS, "None if unsure else observed", "observed"),
    # who asks for sizes and times
    (OBSERVER, "if event not in _FORKS:", "if False:"),
    (OBSERVER, "self._asks_for_all |= self._lists > self._announced_lists", "pass"),
    (OBSERVER, "self._asks_for_all |= not self._started and _reaped() != self._children", "pass"),
    (
        OBSERVER,
        "self._announced_lists += 1\n        else",
        "self._announced_lists += 2\n        else",
    ),
    (OBSERVER, "self._asked.add(path)", "pass"),
    (STATS, "(os.lstat, _noting(os.lstat)),", ""),
    (STATS, "(os.scandir, _listing(os.scandir)),", ""),
    (STATS, "patches.replace_everywhere(old, new)", "patches.set(os, old.__name__, new)"),
    (STATS, '"getmtime", ', ""),
    (STATS, '"getsize", ', ""),
    (STATS, 'keywords.get("dir_fd")', "None"),
    (STATS, "return is_method and (", "return True or ("),
    (STATS, "code.co_name not in _TELL_SIZE_OR_TIME", "True"),
    # the checks
    (EXPLORE, "if source is not None and _differ(outcome, source):", "if False:"),
    (SWEEP, "yield one.place, self._check(one)", "return"),
    # the early end
    (EARLY, "if not is_due or not self._is_in_order(reads):", "if not is_due:"),
    (EARLY, "self._count + 1 if place == self._place + 1 else 1", "self._count + 1"),
    (EARLY, "if place < 0:", "if False:"),
    (EARLY, "max(*gaps, trace.epoch_steps or 0) + 1", "min(gaps) + 1"),
    (EARLY, "completed_files(changes) if change.step})", "completed_files(changes)})"),
    (EARLY, "contents_of(self._start, trace.matched_from) in self._done", "True"),
    (EARLY, 'if found.keys() - {""} != expected.keys():', "if False:"),
    (EXPLORE, "if outcome.could_end_early and ", "if False and "),
]
"""A module of ``crashes``, and a text in it with its wrong replacement."""
OBSERVED = ("test_crash_observations.py",)
STEPS = tuple(
    f"test_crash_skipping.py::test_{name}"
    for name in (
        "only_steps_in_a_row_count",
        "a_run_ends_early_only_in_the_directory_of_the_golden_run",
        "a_horizon_is_an_epoch_and_an_interval_between_saves",
    )
)
CHECKS = ("test_crash_skipping.py::test_a_check_that_ends_differently_runs_all_states",)
WHOLE = ("test_crash_skipping.py::test_what_no_digest_sees_is_found_by_the_runs_that_go_on",)


def finders_of(mutant: tuple[str, str, str]) -> tuple[str, ...]:
    """Return the tests that must find a mutant."""
    name, right, _ = mutant
    if "_done" in right or "could_end_early" in right:
        return WHOLE
    return {EARLY: STEPS, SWEEP: CHECKS, EXPLORE: CHECKS}.get(name, OBSERVED)


def passes(package: Path, tests: tuple[str, ...]) -> bool:
    """Return True if these tests pass with this copy of the package."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
    ]
    options = [
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        "--basetemp",
        str(package.parent / "tmp"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [*command, *options, *(str(HERE / name) for name in tests)],
        env=environment,
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode == 0


def copy(folder: Path) -> Path:
    """Return a copy of the package."""
    return Path(
        shutil.copytree(
            PACKAGE, folder / "pytest_mlchaos", ignore=shutil.ignore_patterns("__pycache__")
        )
    )


def test_without_a_mutant_the_tests_pass(tmp_path):
    """A copy of the package is tested, so a failure with a mutant is the mutant's."""
    assert passes(copy(tmp_path), (*OBSERVED, *STEPS, *CHECKS, *WHOLE))


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=[f"{number}-{one[0]}" for number, one in enumerate(MUTANTS)]
)
def test_a_wrong_skip_fails_a_test(tmp_path, mutant):
    """Each planted mistake would let a state follow, or a run end early, that must not."""
    name, right, wrong = mutant
    file = copy(tmp_path) / "crashes" / f"{name}.py"
    text = file.read_text()
    assert text.count(right) == 1
    file.write_text(text.replace(right, wrong))
    assert not passes(file.parents[name.count("/") + 1], finders_of(mutant))
