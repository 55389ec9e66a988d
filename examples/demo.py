"""Breaks six small training programs on purpose, shows what a user would see, and checks every word of it.

Run it with the Python that has pytest-mlchaos, torch and pytorch-lightning: ``python examples/demo.py``.
"""

from __future__ import annotations

import ast
import concurrent.futures
import dataclasses
import difflib
import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
QUIET = ["--tb=short", "--show-capture=no", "-p", "no:warnings"]


class DemoFailed(Exception):
    """Something is not as this demo says."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One folder: what it shows, its tests, the verdict, and the fault (a pattern) that the unsound version must be broken by."""

    title: str
    folder: str
    tests: str
    unsound: str
    sound: str
    smallest: str
    verdict: str = "did not end in the state of its golden run"

    def node(self, test: str) -> str:
        """The test's name for pytest."""
        return f"examples/{self.folder}/{self.tests}::{test}"


EXAMPLES = [
    Example(
        "A checkpoint without the random numbers: a job that is killed and resumed shuffles its data in another order",
        "checkpoints",
        "test_checkpoints.py",
        "test_unsound_checkpoint",
        "test_sound_checkpoint",
        r"crash\(at=5\)",  # an epoch has 5 steps: the first step behind the first checkpoint
    ),
    Example(
        "Lightning with shuffle=True: its checkpoint does not hold the order of the data either",
        "lightning",
        "test_lightning.py",
        "test_unsound_resume",
        "test_sound_resume",
        r"crash\(at=3\)",  # an epoch has 3 steps
    ),
    Example(
        "Out of memory in the backward pass: a retry with half the batch, on top of gradients that are already there",
        "oom",
        "test_oom.py",
        "test_unsound_retry",
        "test_sound_retry",
        r"gpu_oom\(at=.*\)",
    ),
]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One pytest session: its exit code, its output, and how long it took."""

    code: int
    output: str
    seconds: float

    @property
    def failure(self) -> str:
        """The output, trimmed to the failure."""
        _, _, rest = self.output.partition("= FAILURES =")
        lines = rest.partition("short test summary info")[0].splitlines()[1:]
        return "\n".join(line for line in lines if not line.startswith("====")).rstrip()

    @property
    def last_line(self) -> str:
        """``1 passed in 3.21s``."""
        return self.output.rstrip().rpartition("\n")[2]


def pytest(*arguments: str) -> Outcome:
    """Run pytest in a process of its own; small models train faster on one thread."""
    start = time.monotonic()
    done = subprocess.run(
        [*PYTEST, *QUIET, *arguments],
        cwd=HERE.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return Outcome(done.returncode, done.stdout, time.monotonic() - start)


def both_explored(example: Example) -> tuple[Outcome, Outcome]:
    """The unsound and the sound test, explored at the same time; the seed makes it the same search each time."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        unsound, sound = (pool.submit(pytest, example.node(test), "--mlchaos-seed=0") for test in (example.unsound, example.sound))
        return unsound.result(), sound.result()


def check(holds: object, claim: str, outcome: Outcome) -> None:
    """Stop unless a claim about a pytest session holds."""
    if not holds:
        raise DemoFailed(f"{claim}\npytest ended with exit code {outcome.code}:\n{textwrap.indent(outcome.output, '    ')}")


def show(title: str, text: str) -> None:
    """A block of text under a title."""
    print(f"{title}\n\n{textwrap.indent(text.strip(chr(10)), '    ')}\n", flush=True)


def source(example: Example, test: str) -> str:
    """A test's source, decorators included."""
    text = (HERE / example.folder / example.tests).read_text()
    found = next(node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == test)
    return "\n".join(text.splitlines()[found.decorator_list[0].lineno - 1 : found.end_lineno])


def fix(example: Example) -> str:
    """The lines in which the sound version differs from the unsound one."""
    versions = [(HERE / example.folder / name).read_text().splitlines()[1:] for name in ("unsound.py", "sound.py")]
    lines = difflib.unified_diff(*versions, n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def replay_line(example: Example, outcome: Outcome) -> str:
    """The smallest failing schedule, from the line that pytest printed for the user to paste."""
    printed = re.search(r"or: (pytest .*)$", outcome.output, re.MULTILINE)
    check(printed, "the failure has no line to paste", outcome)
    words = shlex.split(printed[1])
    check(words[1] == example.node(example.unsound), "the line to paste names another test", outcome)
    return words[words.index("--mlchaos-replay") + 1]


def check_broken(example: Example, outcome: Outcome) -> None:
    """The unsound version fails, and for the reason that the example is about."""
    name = f"{example.folder}: {example.unsound}"
    check(outcome.code == 1 and f"\nFAILED {example.node(example.unsound)}" in outcome.output, f"{name} should fail", outcome)
    check("1 failed" in outcome.last_line, f"{name}, and nothing else, should fail", outcome)
    check(example.verdict in outcome.failure, f"{name} should fail because: {example.verdict}", outcome)
    check(re.search(rf"reproduce: @chaos\.{example.smallest}$", outcome.failure, re.MULTILINE), f"{name}: another fault broke it", outcome)


def demonstrate(number: int, example: Example) -> tuple[str, str, str, str]:
    """Show one example, check it, and give its row of the summary."""
    print(f"{'=' * 100}\n{number}. {example.title}\n{'=' * 100}\n")
    show("The test:", source(example, example.unsound))

    broken, explored = both_explored(example)
    check_broken(example, broken)
    show(f"It fails, in {broken.seconds:.0f} s:", broken.failure)

    schedule = replay_line(example, broken)
    again = pytest(example.node(example.unsound), example.node(example.sound), "--mlchaos-replay", schedule)
    check_broken(example, again)
    check("1 passed" in again.last_line, f"{example.folder}: {example.sound} should pass under {schedule}", again)
    check(explored.code == 0 and "1 passed" in explored.last_line, f"{example.folder}: {example.sound} should pass", explored)

    show("The fix:", fix(example))
    show(f"Both replayed under that schedule, {schedule}: the unsound one fails again, the sound one passes.", again.last_line)
    show("The sound one, explored as the unsound one was:", explored.last_line)
    return example.folder, schedule, "failed, twice", "passed, twice"


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows in columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def main() -> int:
    """All examples; 0 if each is as it says."""
    start = time.monotonic()
    rows: list[tuple[str, ...]] = [("example", "broken by", "unsound", "sound")]
    try:
        rows += [demonstrate(number, example) for number, example in enumerate(EXAMPLES, 1)]
    except DemoFailed as problem:
        print(f"THE DEMO FAILED: {problem}", file=sys.stderr)
        return 1
    print(f"{'=' * 100}\nSummary: all as expected, in {time.monotonic() - start:.0f} s\n{'=' * 100}\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
