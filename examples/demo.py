"""Break small programs on purpose, show what a user would see, and check every line of it.

Run it in an environment with pytest-mlchaos and the packages that ``examples/README.md`` names:
``python examples/demo.py``.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import os
import queue
import re
import shlex
import sys
import tempfile
import textwrap
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

# The line above makes this import possible
from examples.warm_pytest import WarmPytest  # noqa: E402

QUIET = [
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
    "--tb=short",
    "--show-capture=no",
    "-p",
    "no:warnings",
]
AT_A_TIME = 2  # pytest sessions at a time
# Folders that a failure need not show.
OF_THIS_MACHINE = {str(HERE.parent), tempfile.gettempdir(), sys.prefix}


WARM = ("torch", "torch._dynamo", "numpy")  # most examples import these
WITHOUT_FAULT = 1  # pairs whose input changes instead (incremental)
FIRST_EXAMPLE = 2  # the number of the first of EXAMPLES, because the plain loop comes first


class DemoFailed(Exception):
    """Signal that the demo does not show what it says."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A pair of tests.

    It has the fault (a pattern) and the visit that break the unsound test, and the verdict on it.
    """

    title: str
    folder: str
    unsound: str
    sound: str
    smallest: str
    visit: str
    verdict: str
    versions = ("unsound.py", "sound.py")

    @property
    def tests(self) -> Path:
        """Return the file of both tests."""
        return HERE / self.folder / f"test_{self.folder}.py"

    def node(self, test: str) -> str:
        """Return the test's name for pytest."""
        return f"{self.tests.relative_to(HERE.parent).as_posix()}::{test}"


NOT_RECOVERED = "NotRecovered: the run did not end in the state of its golden run"

EXAMPLES = [
    Example(
        "A checkpoint without the random numbers: a job that is killed and resumed shuffles its "
        "data in another order",
        "checkpoints",
        "test_unsound_checkpoint",
        "test_sound_checkpoint",
        r"crash\(at=5\)",  # an epoch has 5 steps: the first step after the first checkpoint
        "train.step 5",
        NOT_RECOVERED,
    ),
    Example(
        "A checkpoint in S3, in two objects: a reply is lost between them, and a restart finds "
        "halves that do not belong together",
        "storage",
        "test_unsound_checkpoint",
        "test_sound_checkpoint",
        # the second checkpoint, because the first one has no older one to be mixed with
        r"flaky_storage\(at=2, .*when='after'.*\)",
        "storage.write 2 (op=write, path=checkpoints/run/model.pt)",
        "StateDiffers: state",
    ),
    Example(
        "A DDP job that loses rank 0 before it has written a checkpoint: the other rank waits for "
        "that file for ever",
        "ddp",
        "test_unsound_wait",
        "test_sound_wait",
        # an epoch has 3 steps: the rank dies after the last one, before the checkpoint
        r"rank_failure\(at=2, rank=0\)",
        "train.step 2 (rank=0)",
        "RankHung: rank 1 was still running",
    ),
    Example(
        "A DDP job in which a rank has a batch less than the other: it leaves, and the other one "
        "fails in the middle of its epoch",
        "uneven",
        "test_unsound_epoch",
        "test_sound_epoch",
        r"drop_batch\(at=0, rank=1\)",
        "data.batch 0 (rank=1",
        "RankFailed: rank 0 did not finish",
    ),
    Example(
        "A DDP job whose checkpoint has the random state of rank 0 alone: after a restart, all "
        "ranks draw the same noise",
        "noise",
        "test_unsound_restart",
        "test_sound_restart",
        r"rank_failure\(at=3, rank=[01]\)",  # an epoch has 3 steps: the first after a checkpoint
        "train.step 3 (rank=",
        "NotRecovered: rank 0 did not end in the state of its golden run",
    ),
    Example(
        "A script under torchrun that loses one of its nodes: the data of that node is missing "
        "from then on",
        "nodes",
        "test_unsound_script",
        "test_sound_script",
        r"node_loss\(at=3, ranks=\(1,\)\)",
        "train.step 3 (rank=1",
        "NotRecovered: rank 0 did not end in the state of its golden run",
    ),
    Example(
        "A DDP job in which one rank sends wrong gradients: all ranks agree, and all are wrong",
        "silent",
        "test_unsound_sum",
        "test_sound_sum",
        r"corrupt_contribution\(at=0, rank=[01]\)",
        "collective",
        "NotRecovered: rank 0 did not end in the state of its golden run",
    ),
    Example(
        "A scorer behind HTTP that waits for its feature store as long as that takes",
        "serving",
        "test_unsound_waits_with_the_store",
        "test_sound_answers_in_time",
        r"latency_spike\(at=3, .*\)",
        "call 3 (request=3)",
        "SloMissed: the SLO is missed",
    ),
    Example(
        "A batch job that fills features with zeros when they cannot be had: it ends well, with "
        "other predictions",
        "batch",
        "test_unsound_batch_job",
        "test_sound_batch_job",
        # Zeros are nearest to the first flowers, so they do no harm there
        r"call_failure\(at=2, .*\)",
        "call 2",
        "SilentlyDifferent: the pipeline raised nothing, but its output differs from its golden "
        "run",
    ),
    Example(
        "The same scorer while its feature store is down: status 500 instead of the answer that "
        "needs no features",
        "serving",
        "test_unsound_fails_with_the_store",
        "test_sound_falls_back",
        r"dependency_failure\(at=0, .*\)",
        "call 0 (request=0)",
        "NoFallback: not the declared fallback",
    ),
    Example(
        "The same batch job as a monitor of its predictions sees it",
        "batch",
        "test_unsound_predictions",
        "test_sound_predictions",
        r"call_failure\(at=\[2, 4\], .*\)",
        "call 4",
        "Drifted: the column",
    ),
    Example(
        "Features from a table whose columns stand in another order: nothing is raised, and every "
        "prediction is suspect",
        "features",
        "test_unsound_features",
        "test_sound_features",
        r"schema_drift\(at=0, kind='reordered'\)",  # the only file that is read
        "data.table 0 (kind=reordered)",
        "SilentlyDifferent: the pipeline raised nothing, but its output differs from its golden "
        "run",
    ),
    Example(
        "A scorer of loans that fills missing incomes with the mean of all: harmless for most, and "
        "wrong for the region whose data lose the column",
        "fairness",
        "test_unsound_defaults",
        "test_sound_defaults",
        r"missing_values\(at=0, rows=\{'region': 'rural'\}, column='income', fraction=1.0\)",
        "data.table 0 (columns={'income': 800})",
        "Unfair: harm by the fault between 2 groups",
    ),
    Example(
        "A scorer that shows callers all decimals while the store of its settings is down: they "
        "tell who was in the training data",
        "membership",
        "test_unsound_fails_open",
        "test_sound_fails_closed",
        r"call_failure\(at=0, .*\)",
        "call 0",
        "Leaks: the score tells members of the training data from others",
    ),
    Example(
        "A detector of faulty parts that relies on readings which hardly differ: changes within "
        "the tolerance of the sensors mislead it",
        "adversarial",
        "test_unsound_training",
        "test_sound_training",
        r"adversarial\(at=0, epsilon=0.2\)",
        "model.call 0",
        "MetricMissed: the metric is 0 over 400 samples",
    ),
    Example(
        "Lightning with shuffle=True: its checkpoint does not hold the order of the data either",
        "lightning",
        "test_unsound_resume",
        "test_sound_resume",
        r"crash\(at=3\)",  # an epoch has 3 steps
        "train.step 3",
        NOT_RECOVERED,
    ),
    Example(
        "Out of memory in the backward pass: a retry with half the batch, on top of gradients that "
        "are already there",
        "oom",
        "test_unsound_retry",
        "test_sound_retry",
        r"gpu_oom\(at=.*\)",
        "train.backward 0",
        NOT_RECOVERED,
    ),
    Example(
        "The same retry as the optimizer sees it: which step is given another gradient than that "
        "of its batch",
        "oom",
        "test_unsound_effective_batch",
        "test_sound_effective_batch",
        r"gpu_oom\(at=.*\)",
        "train.backward 0",
        "BatchDiffers: the effective batch is not that of the golden run",
    ),
    Example(
        "A machine that is taken away: SIGTERM, 30 s, SIGKILL; and a handler whose note is read "
        "when the epoch is over",
        "preempt",
        "test_unsound_handler",
        "test_sound_handler",
        r"preempt\(at=0\)",
        "train.step 0 (handler=",
        "NoEmergencySave: no emergency save: no file changed between SIGTERM at train.step 0 and "
        "SIGKILL, 30 s later",
    ),
    Example(
        "A loss guard that skips batches above a limit: NaN is above nothing, and one missing "
        "value ends the training",
        "lossguard",
        "test_unsound_guard",
        "test_sound_guard",
        r"corrupt_batch\(at=0, .*\)",
        "data.batch 0",
        "NotConverged: the loss is nan at step 0",
    ),
    Example(
        "A sensor whose gain grows slowly: an alert that compares each batch with the one before "
        "sees no step that is large enough",
        "degradation",
        "test_unsound_alert",
        "test_sound_alert",
        r"corrupt_batch\(at=0, ramp=20, .*\)",
        "data.batch 0 (strength=0.05",
        "Unnoticed: alarm did not see corrupt_batch",
    ),
    Example(
        "A download that is cut half-way: read() returns nothing more, as at the end of the file, "
        "and half the weights are there",
        "download",
        "test_unsound_download",
        "test_sound_download",
        r"cut_connection\(at=0\)",
        "network 0",
        "SilentlyDifferent: the pipeline raised nothing, but its output differs from its golden "
        "run",
    ),
    Example(
        "A checkpoint in two regions: the first one fails for three requests, comes back with an "
        "old checkpoint, and the newer one is forgotten",
        "regions",
        "test_unsound_regions",
        "test_sound_regions",
        r"zone_outage\(at=2, zone='eu', connections=3\)",
        "network 2",
        "SilentlyDifferent: the pipeline raised nothing, but its output differs from its golden "
        "run",
    ),
    Example(
        "A balancer over two zones: one goes away with the answers that were under way, and the "
        "requests that are repeated are billed twice",
        "failover",
        "test_unsound_balancer",
        "test_sound_balancer",
        r"zone_outage\(at=1, zone='eu', heal_after=0.5\)",
        "network 1",
        "NotExactlyOnce: not exactly once: the effects of 1 of 40 requests",
    ),
    Example(
        "A nightly job with a cache: a file that came late on the first night is missing from the "
        "totals of all nights after it",
        "incremental",
        "test_unsound_late_day",
        "test_sound_late_day",
        r"damaged_file\(at=0, .*kind='missing'\)",
        "storage.file 0 (path=days/monday.csv",
        "SilentlyDifferent: the pipeline raised nothing, but its output differs from its golden "
        "run",
    ),
    Example(
        "A credit scorer whose feature store was not refreshed for two days: its answers look like "
        "all others",
        "freshness",
        "test_unsound_scorer",
        "test_sound_scorer",
        r"stale_feature\(at=0, .*\)",
        "call.result 0 (request=0",
        "NoFallback: not the declared fallback",
    ),
    Example(
        "A canary controller that counts failed checks, and acts on them in one of its states: a "
        "version that fails every other request goes live",
        "canary",
        "test_unsound_controller",
        "test_sound_controller",
        r"bad_deploy\(at=0\)",
        "rollout.deploy 0 (kind=errors",
        "NotRolledBack: v2 is worse, and was not rolled back",
    ),
    Example(
        "A federation of gardens that averages what they send: one of them lies, and the model is "
        "worthless for all",
        "federation",
        "test_unsound_average",
        "test_sound_median",
        r"malicious_update\(at=0, client=0\)",
        "federation.round 0 (kind=sign, round=0, client=0)",
        "Worse: the metric of the global model is",
    ),
    Example(
        "A credit scorer that replaces features which cannot be had by those of a good customer: "
        "the answer is wrong, and looks as usual",
        "scorer",
        "test_unsound_scorer",
        "test_sound_scorer",
        r"dependency_failure\(at=0, .*\)",
        "call 0 (request=0)",
        "SilentlyWrong: neither right, nor the declared fallback, nor an error",
    ),
    Example(
        "A dynamic batcher that takes each request as it comes: one bad request takes its whole "
        "batch with it",
        "batcher",
        "test_unsound_batcher",
        "test_sound_batcher",
        r"poisoned_batch\(at=.*\)",
        "serve.request",
        "NotIsolated: different from the golden run",
    ),
    Example(
        "A server that streams tokens from a task of its own: when the client has left, the model "
        "works on in vain",
        "tokens",
        "test_unsound_server",
        "test_sound_server",
        r"client_disconnect\(at=0, .*\)",
        "serve.request 0 (request=0",
        "WorkGoesOn: work goes on 100 ms after the client has left",
    ),
]


@dataclasses.dataclass(frozen=True)
class Explored:
    """A pair of tests that explore all crash states.

    It has the state to paste for the unsound test, and patterns of its report.
    """

    title: str
    unsound: str
    sound: str
    versions: tuple[str, str]
    state: str
    report: tuple[str, ...]
    folder: str = "crashes"
    tests = Example.tests
    node = Example.node


EXPLORED = [
    Explored(
        "Killed at any moment, in the middle of a write too: a checkpoint that is written over the "
        "one before it",
        "test_unsound_overwrites",
        "test_sound_replaces",
        ("plain_unsound.py", "plain_sound.py"),
        "last.pt@0#3",  # an epoch has 3 steps: the first write of the first checkpoint
        (
            r"mlchaos: \d+ crash states in 15 steps \(5 checkpoint writes\), checked in .* s: \d+ recover, \d+ do not",
            r"  failed +\d+x  resume raised EOFError",
            r" +at examples/crashes/plain_unsound.py:\d+ in train",
            r" +first: last.pt cut at byte 0 of \d+, after step 3",
            r"  lost work: at most 3 steps; restart: .* s",
        ),
    ),
    Explored(
        "A Lightning trainer, killed at any moment: a checkpoint within the epoch, and one that is "
        "moved in from another filesystem",
        "test_unsound_trainer",
        "test_sound_trainer",
        ("unsound.py", "sound.py"),
        "last.ckpt@0#2",  # a checkpoint every other step
        (
            r"mlchaos: \d+ crash states in 9 steps \(\d+ checkpoint writes\), checked in .* s: \d+ recover, \d+ do not",
            r"  failed +\d+x  resume raised EOFError",
            r" +first: last.ckpt cut at byte 0 of \d+, after step 2",
            r"  diverged +\d+x  first divergence at step 2: data order",
            r" +\(the position in the epoch is not restored.*\)",
            r"  lost work: at most 2 steps; restart: .* s",
        ),
    ),
]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one pytest session: its exit code, its output, and its time."""

    code: int
    output: str
    seconds: float

    @property
    def failure(self) -> str:
        """Return the output, trimmed to the failure."""
        _, _, rest = self.output.partition("= FAILURES =")
        lines = rest.partition("short test summary info")[0].splitlines()[1:]
        return "\n".join(line for line in lines if not line.startswith("====")).rstrip()

    @property
    def last_line(self) -> str:
        """Return the last line, for example ``1 passed in 3.21s``."""
        return self.output.rstrip().rpartition("\n")[2]


idle: queue.SimpleQueue[WarmPytest] = queue.SimpleQueue()
"""Processes that have imported torch, and fork a pytest on request."""


def pytest(*arguments: str) -> Outcome:
    """Run pytest in a process of its own."""
    warm = idle.get()
    start = time.monotonic()
    try:
        code, output, errors = warm.run([*QUIET, *arguments], HERE.parent, os.environ)
    finally:
        idle.put(warm)
    return Outcome(code, f"{errors}{output}", time.monotonic() - start)


def check(holds: object, claim: str, outcome: Outcome) -> None:
    """Stop unless a claim about a pytest session holds."""
    if not holds:
        raise DemoFailed(
            f"{claim}\npytest ended with exit code "
            f"{outcome.code}:\n{textwrap.indent(outcome.output, '    ')}"
        )


def check_report(example: Explored, outcome: Outcome, *lines: str) -> None:
    """Check that the unsound version fails with such lines in its report."""
    name = f"{example.folder}: {example.unsound}"
    check(
        outcome.code == 1 and f"\nFAILED {example.node(example.unsound)}" in outcome.output,
        f"{name} should fail",
        outcome,
    )
    check("1 failed" in outcome.last_line, f"{name}, and nothing else, should fail", outcome)
    check(".NotRecovered: mlchaos: " in outcome.failure, f"{name} should not recover", outcome)
    for line in lines:
        check(
            re.search(rf"^E .*{line}$", outcome.failure, re.MULTILINE),
            f"{name}: the report should say {line}",
            outcome,
        )
    check(
        not any(folder in outcome.failure for folder in OF_THIS_MACHINE),
        f"{name}: the failure names a folder of this machine",
        outcome,
    )


def check_broken(example: Example, outcome: Outcome) -> None:
    """Check that the unsound version fails, and for the reason of the example."""
    name = f"{example.folder}: {example.unsound}"
    check(
        outcome.code == 1 and f"\nFAILED {example.node(example.unsound)}" in outcome.output,
        f"{name} should fail",
        outcome,
    )
    check("1 failed" in outcome.last_line, f"{name}, and nothing else, should fail", outcome)
    check(
        f".{example.verdict}" in outcome.failure,
        f"{name} should fail because: {example.verdict}",
        outcome,
    )
    # the report must name exactly this decorator
    smallest = rf"^E +reproduce: @chaos\.{example.smallest}\nE +or: "
    check(
        re.search(smallest, outcome.failure, re.MULTILINE),
        f"{name}: another fault broke it",
        outcome,
    )
    struck = rf"^E +struck: {example.smallest} at {re.escape(example.visit)}"
    check(
        re.search(struck, outcome.failure, re.MULTILINE),
        f"{name}: it struck elsewhere than at {example.visit}",
        outcome,
    )
    check(
        not any(folder in outcome.failure for folder in OF_THIS_MACHINE),
        f"{name}: the failure names a folder of this machine",
        outcome,
    )


def replay_line(example: Example | Explored, outcome: Outcome) -> str:
    """Return the smallest failing schedule or crash state from the line that pytest printed to
    paste.
    """
    printed = re.search(r"or: (pytest .*)$", outcome.output, re.MULTILINE)
    check(printed, "the failure has no line to paste", outcome)
    words = shlex.split(printed[1])
    check(
        words[1] == example.node(example.unsound), "the line to paste names another test", outcome
    )
    return words[words.index("--mlchaos-replay") + 1]


def broken_twice(example: Example) -> tuple[Outcome, str, Outcome]:
    """Run the unsound test as a user would, and then both tests under the schedule that breaks it."""
    # The seed makes each search the same.
    broken = pytest(example.node(example.unsound), "--mlchaos-seed=0")
    check_broken(example, broken)
    schedule = replay_line(example, broken)
    again = pytest(
        example.node(example.unsound), example.node(example.sound), "--mlchaos-replay", schedule
    )
    check_broken(example, again)
    check(
        again.last_line.startswith("1 failed, 1 passed"),
        f"{example.folder}: {example.sound} should pass under {schedule}",
        again,
    )
    return broken, schedule, again


def explored_twice(example: Explored) -> tuple[Outcome, Outcome, str, Outcome]:
    """Run both tests as a user would, and then the crash state that the unsound test's report
    names.
    """
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        broken, sound = pool.map(
            pytest, [example.node(example.unsound), example.node(example.sound)]
        )
    pasted = rf'  reproduce: @chaos.crash\(state="{re.escape(example.state)}"\)'
    check_report(example, broken, *example.report, pasted)
    check(
        sound.code == 0 and sound.last_line.startswith("1 passed"),
        f"{example.folder}: {example.sound} should pass",
        sound,
    )
    schedule = replay_line(example, broken)
    again = pytest(example.node(example.unsound), "--mlchaos-replay", schedule)
    check_report(example, again, r"mlchaos: 1 crash state in .*: 0 recover, 1 does not")
    return broken, sound, schedule, again


def all_sound() -> Outcome:
    """Run the sound tests in one session. Those that explore crash states have their own sessions."""
    outcome = pytest(
        "examples",
        f"--ignore={EXPLORED[0].tests.parent}",
        "--ignore=examples/kinds",  # these have no unsound versions
        "--ignore=examples/ranksave",  # it takes minutes, so the demo leaves it out
        "--ignore=examples/private",  # it needs Opacus
        "--ignore=examples/tolerance",  # it has no schedule to repeat, and takes long
        "-k",
        "test_sound",
        "-rp",
        "--mlchaos-seed=0",
    )
    for example in EXAMPLES:
        check(
            f"\nPASSED {example.node(example.sound)}\n" in outcome.output,
            f"{example.folder}: {example.sound} should pass",
            outcome,
        )
    number = len(EXAMPLES) + WITHOUT_FAULT
    counts = f"{number} passed, {number} deselected in"
    check(
        outcome.code == 0 and counts in outcome.last_line,
        f"there should be {number} sound tests and as many others",
        outcome,
    )
    return outcome


def show(title: str, text: str) -> None:
    """Print a block of text under a title."""
    print(f"{title}\n\n{textwrap.indent(text.strip(chr(10)), '    ')}\n", flush=True)


def source(example: Example | Explored, test: str) -> str:
    """Return a test's source, with its decorators and the constants that it uses."""
    text = example.tests.read_text()
    nodes = ast.parse(text).body
    found = next(node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == test)
    used = {node.id for node in ast.walk(found) if isinstance(node, ast.Name)}
    constants = [
        node
        for node in nodes
        if isinstance(node, ast.Assign) and used & {ast.unparse(name) for name in node.targets}
    ]
    lines = text.splitlines()[
        min(node.lineno for node in (found, *found.decorator_list)) - 1 : found.end_lineno
    ]
    return "\n".join(
        [
            *(ast.get_source_segment(text, node) or "" for node in constants),
            *([""] if constants else []),
            *lines,
        ]
    )


def fix(example: Example | Explored) -> str:
    """Return the lines in which the sound version differs, with a blank line between the places."""
    versions = [
        (HERE / example.folder / name).read_text().splitlines()[1:] for name in example.versions
    ]
    lines = difflib.unified_diff(*versions, n=0, lineterm="")
    return "\n".join(
        "" if line.startswith("@@") else line
        for line in lines
        if not line.startswith(("---", "+++"))
    )


def headline(text: str) -> None:
    """Print a headline."""
    print(f"{'=' * 100}\n{text}\n{'=' * 100}\n", flush=True)


def progress(text: str) -> None:
    """Print what is being done, on a terminal or in a log."""
    print(f"... {text}\n", flush=True)


def demonstrate(
    number: int, example: Example, sessions: Future[tuple[Outcome, str, Outcome]]
) -> tuple[str, ...]:
    """Show one example whose sessions have been started, and return its row of the summary."""
    headline(f"{number}. {example.title}")
    show("The test:", source(example, example.unsound))
    progress("searching for a schedule of faults that breaks it, and replaying the smallest one")
    broken, schedule, again = sessions.result()
    show(f"It fails, in {broken.seconds:.0f} s:", broken.failure)
    first = next(
        place
        for place, other in enumerate(EXAMPLES, FIRST_EXAMPLE)
        if other.folder == example.folder
    )
    show("The fix:", fix(example) if first == number else f"The same as above, in {first}.")
    show(
        f"Both versions replayed under that schedule, {schedule}: the unsound one fails again, the "
        f"sound one passes.",
        again.last_line,
    )
    return example.folder, schedule, "failed, twice", "passed, twice"


def demonstrate_explored(number: int, example: Explored) -> tuple[str, ...]:
    """Show a pair that explores crash states, and return its row of the summary."""
    headline(f"{number}. {example.title}")
    start = time.monotonic()
    show("The test:", source(example, example.unsound))
    progress("resuming it, and the sound version, from each state that a crash can leave on disk")
    broken, sound, schedule, again = explored_twice(example)
    show(f"It fails, in {broken.seconds:.0f} s:", broken.failure)
    show("The fix:", fix(example))
    show(f"With it, all crash states recover: {sound.last_line}", source(example, example.sound))
    show(
        f"The line to paste repeats one state of the unsound version, in {again.seconds:.0f} s:",
        again.failure,
    )
    print(
        f"All of this, with the start of three pytest sessions: {time.monotonic() - start:.0f} s\n",
        flush=True,
    )
    return example.folder, schedule, "failed, twice", "passed"


def table(rows: list[tuple[str, ...]]) -> str:
    """Format rows in columns of the needed width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main() -> int:
    """Run all examples. Return 0 if each is as it says."""
    start = time.monotonic()
    rows: list[tuple[str, ...]] = [("example", "broken by", "unsound", "sound")]
    os.environ["OMP_NUM_THREADS"] = "1"  # small models train faster on one thread
    processes = [WarmPytest(*WARM) for _ in range(AT_A_TIME)]
    for process in processes:
        idle.put(process)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        try:
            rows.append(demonstrate_explored(1, EXPLORED[0]))
            sessions = [pool.submit(broken_twice, example) for example in EXAMPLES]
            sound = pool.submit(all_sound)
            rows += [
                demonstrate(number, *both)
                for number, both in enumerate(zip(EXAMPLES, sessions, strict=True), FIRST_EXAMPLE)
            ]
            headline(
                "The sound versions, under all the schedules that their tests try: pytest examples "
                "-k test_sound"
            )
            show("They pass:", sound.result().output)
            rows += [
                demonstrate_explored(number, example)
                for number, example in enumerate(EXPLORED[1:], len(EXAMPLES) + FIRST_EXAMPLE)
            ]
        except DemoFailed as problem:
            print(f"THE DEMO FAILED: {problem}", file=sys.stderr)
            return 1
        finally:
            pool.shutdown(cancel_futures=True)
            for process in processes:
                process.close()
    headline(f"Summary: all as expected, in {time.monotonic() - start:.0f} s")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
