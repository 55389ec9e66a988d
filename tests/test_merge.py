"""Merging the journals of shards: the verdict of one machine, or a clear refusal."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from pytest_mlchaos.__main__ import main
from pytest_mlchaos.core.entries import Line, Point, Trial, parse_line
from pytest_mlchaos.core.entries import Test as End
from pytest_mlchaos.core.settings import Settings
from pytest_mlchaos.core.shard_entries import Part, PartState, Searched, ShardEntry
from pytest_mlchaos.core.shards import Shard
from pytest_mlchaos.merging.searches import _nothing_shown, merge_searches
from pytest_mlchaos.reports.journal_reader import TestLog, session_of
from pytest_mlchaos.reports.points import missed_points
from pytest_mlchaos.search.explore import _Memory, _sweep_part

JOB = '''
import json
import os


def train(path, steps=4, forgets=False):
    """Save after each step, so that the file is complete or absent."""
    file, state = path / "state.json", {"step": 0, "x": 0}
    if file.exists():
        state = json.loads(file.read_text())
    if forgets and state["step"] == 3:
        state = {"step": 0, "x": 0}
    for step in range(state["step"], steps):
        state = {"step": step + 1, "x": (state["x"] * 31 + step) % 10007}
        (path / "state.tmp").write_text(json.dumps(state))
        os.replace(path / "state.tmp", file)
    return state


def careless(path, steps=3):
    """Save in place, so that the file may be empty."""
    file, state = path / "state.json", {"step": 0, "x": 0}
    if file.exists():
        state = json.loads(file.read_text())
    for step in range(state["step"], steps):
        state = {"step": step + 1, "x": (state["x"] * 31 + step) % 10007}
        file.write_text(json.dumps(state))
    return state
'''
SOUND = """
from job import *


def test_sound(mlchaos, tmp_path):
    mlchaos.explore_crashes(train, tmp_path).assert_recovers()


def test_plain():
    pass
"""
UNSOUND = """
from functools import partial

from job import *


def test_careless(mlchaos, tmp_path):
    mlchaos.explore_crashes(careless, tmp_path).assert_recovers()


def test_forgets(mlchaos, tmp_path):
    mlchaos.explore_crashes(partial(train, forgets=True), tmp_path).assert_recovers()
"""


RECORDED = {}
"""The journals of each session that was run. Tests that need the same one share it."""


@dataclasses.dataclass(frozen=True)
class Session:
    """The journals of one session: in one piece, and in shards."""

    folder: object
    whole: str
    shards: tuple[str, ...]

    def merge(self, *journals, capsys=None):
        """Merge journals. Return the exit code, and the report."""
        report = self.folder / "merged.txt"
        report.unlink(missing_ok=True)
        code = main(["merge", *(journals or self.shards), "--report", str(report)])
        return code, report.read_text()

    def report(self):
        """Return the report of one machine."""
        assert main(["merge", self.whole, "-o", "m.jsonl", "--report", "whole.txt"]) == 0
        return (self.folder / "whole.txt").read_text()


@pytest.fixture
def sharded(example):
    """Run a session in one piece, and in shards."""
    folder = example.pytester.path

    def run(source, count, whole=True):
        names = tuple(f"shard-{index}.jsonl" for index in range(1, count + 1))
        session = Session(folder, "whole.jsonl", names)
        key = (source, count, whole)
        if key not in RECORDED:
            record(source, count, whole)
            RECORDED[key] = {path.name: path.read_text() for path in folder.glob("*.jsonl")}
        for name, text in RECORDED[key].items():
            (folder / name).write_text(text)
        return session

    def record(source, count, whole):
        project = example.with_file("job.py", JOB).with_file("test_jobs.py", source)
        if whole:
            project.run("--mlchaos-journal=whole.jsonl")
        for index in range(1, count + 1):
            shard = f"--mlchaos-shard={index}/{count}"
            project.run(shard, f"--mlchaos-journal=shard-{index}.jsonl")

    return run


def changed(path, kind, **values):
    """Change all entries of this kind in a journal."""
    lines = [parse_line(text) for text in path.read_text().splitlines()]
    changed = [
        dataclasses.replace(line, entry=dataclasses.replace(line.entry, **values))
        if isinstance(line.entry, kind)
        else line
        for line in lines
    ]
    path.write_text("".join(f"{line.text()}\n" for line in changed))


def test_merged_shards_give_the_report_of_one_machine(sharded):
    """The same states, verdicts, causes and counts. Verdicts that depend on other states, too."""
    session = sharded(UNSOUND, 2)
    code, report = session.merge()
    assert report == session.report()
    assert code == 1
    assert "1x failed JSONDecodeError" in report
    # No shard alone sees that earlier states did resume.
    assert "3x restarted although a checkpoint had been complete before" in report


@pytest.mark.slow
def test_eight_shards_of_400_states_give_the_report_of_one_machine(sharded):
    """The same states, verdicts and causes. With one shard missing, no verdict."""
    large = "\ntrain = partial(train, steps=133)\n\n"
    source = f"from functools import partial\n{SOUND}".replace("\n\ndef", f"{large}\ndef", 1)
    session = sharded(source, 8)
    code, report = session.merge()
    assert report == session.report()
    assert (code, report.count("  recovered")) == (0, 400)
    code, report = session.merge(*session.shards[:5], *session.shards[6:])
    assert code == 1
    assert "missing: shard 6 of 8 is lost" in report
    assert report.splitlines()[-1] == "verdict: INCONCLUSIVE"


def test_a_lost_shard_makes_the_whole_inconclusive(sharded):
    """Missing states look like recovered ones."""
    session = sharded(SOUND, 2, whole=False)
    everything = sorted(path.name for path in session.folder.glob("shard-*.jsonl"))
    assert "shard-1.timings.jsonl" in everything
    code, report = session.merge(*everything)
    assert (code, report.splitlines()[-1]) == (0, "verdict: PASSED")
    code, report = session.merge("shard-2.jsonl")
    assert code == 1
    assert "missing: shard 1 of 2 is lost" in report
    assert report.splitlines()[-1] == "verdict: INCONCLUSIVE"


@pytest.mark.slow
def test_the_merged_journal_is_that_of_one_machine(sharded):
    """Other tools read it. Only the states that were really run, and durations, may differ."""
    session = sharded(UNSOUND, 2)
    assert main(["merge", *session.shards, "-o", "merged.jsonl"]) == 1

    def entries(name):
        lines = [json.loads(text) for text in (session.folder / name).read_text().splitlines()]
        for line in lines:
            line.pop("follows", None)
            if line["kind"] in ("test", "trial"):
                # If no shard failed by itself, the line of the assertion is not known.
                line.pop("place", None)
                line["cause"] = line.get("cause", "").partition(" (")[0]
            if line["kind"] in ("test", "exploration"):
                line.pop("notes", None)
                text = line.get("message", "")
                line["message"] = re.sub(r"\n  (states|help|kept|each)[^\n]*", "", text)
        return lines

    assert entries("merged.jsonl") == entries("whole.jsonl")


def test_each_test_without_a_search_runs_in_one_shard(example):
    """Tests that explore run in all. A shard without any test has passed as far as it went."""
    project = example.with_file("job.py", JOB).with_file(
        "test_jobs.py",
        SOUND + "".join(f"\n\ndef test_plain_{number}():\n    pass\n" for number in range(8)),
    )
    ran = [project.run(f"--mlchaos-shard={index}/3", "-k", "plain") for index in (1, 2, 3)]
    assert sum(outcome.outcomes.get("passed", 0) for outcome in ran) == 9
    assert all(0 < outcome.outcomes["passed"] < 9 for outcome in ran)
    empty = project.run("--mlchaos-shard=1/100", "test_jobs.py::test_plain_3")
    assert empty.exit_code == 0
    empty.has("shard 1 of 100: no verdict by itself", "1 deselected")


@pytest.mark.slow
def test_a_failure_without_faults_fails_the_whole(sharded):
    """The journal has no entries of such a test, but its shard notes that it failed."""
    session = sharded(f"{SOUND}\n\ndef test_broken():\n    assert 0\n", 2, whole=False)
    code, report = session.merge()
    assert code == 1
    assert "test_jobs.py::test_broken: failed" in report
    assert report.splitlines()[-1] == "verdict: FAILED"


REFUSED = {
    "two shards with one number": (
        lambda one, two: two.write_text(one.read_text()),
        "shard-1.jsonl and shard-2.jsonl are both of shard 1 of 2",
    ),
    "a different commit": (
        lambda one, two: (
            changed(one, ShardEntry, commit="a" * 40),
            changed(two, ShardEntry, commit="b" * 40),
        ),
        "the commit differs (aaaaaaaaaaaa and bbbbbbbbbbbb)",
    ),
    "a different version": (
        lambda one, two: changed(two, ShardEntry, environment={"python": "2.7"}),
        "the version of hypothesis differs",
    ),
    "a different option": (
        lambda one, two: changed(two, ShardEntry, options={"seed": "3"}),
        "the option allow_quiet differs",
    ),
    "different tests": (
        lambda one, two: changed(two, ShardEntry, tests=7),
        "the number of collected tests differs (2 and 7)",
    ),
    "other states": (
        lambda one, two: changed(two, Part, states=("start#0", "other@3#1")),
        "the crash states of shard-1.jsonl and shard-2.jsonl differ: state 2 is",
    ),
    "a truncated journal": (
        lambda one, two: two.write_text(two.read_text()[:-40]),
        "is not of a shard",
    ),
    "a journal without its end": (
        lambda one, two: two.write_text(
            Line("", 0, ShardEntry(shard="2/2")).text() + "\n" + two.read_text().partition("\n")[0]
        ),
        "shard-2.jsonl: the journal of shard 2 of 2 is truncated (it has no end",
    ),
    "a journal with a line less": (
        lambda one, two: two.write_text(two.read_text().partition("\n")[2]),
        "is truncated (it has",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_one_session_is_refused(sharded, capsys, case):
    """One clear line, and exit code 2."""
    damage, words = REFUSED[case]
    session = sharded(SOUND, 2, whole=False)
    damage(*(session.folder / name for name in session.shards))
    with pytest.raises(SystemExit) as ended:
        main(["merge", *session.shards])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_shards_that_skipped_states_are_in_doubt_if_one_found_that_wrong(sharded):
    """Only the shard that noticed has run all of its states."""
    session = sharded(SOUND, 2, whole=False)
    doubted, other = (session.folder / name for name in session.shards)
    changed(doubted, Part, doubts=("all states were run: …",))
    changed(other, PartState, follows="start#0")
    code, report = session.merge()
    assert code == 1
    assert "verdict: INCONCLUSIVE" in report


SEARCH = """
import json

from pytest_mlchaos import chaos

REFUSED = OSError(28, "No space left on device")


@chaos.call_failure(target="json:dumps", error=REFUSED)
@chaos.settings(seed=3, max_trials=12)
def test_sound():
    for number in range(6):
        for attempt in range(5):
            try:
                json.dumps(number)
                break
            except OSError:
                pass


@chaos.call_failure(target="json:dumps", error=REFUSED)
@chaos.settings(seed=3, max_trials=12)
def test_unsound():
    for number in range(6):
        try:
            json.dumps(number)
        except OSError:
            if number == 4:
                raise RuntimeError("lost") from None


@chaos.call_failure(target="json:dumps", error=REFUSED, at=2)
def test_fixed():
    for number in range(3):
        try:
            json.dumps(number)
        except OSError:
            pass
"""


@dataclasses.dataclass(frozen=True)
class Named:
    """Stands for a schedule."""

    line: str


class Visits:
    """Stands for a space of schedules that a sweep covers."""

    probes = ()

    def __init__(self, count, *, covers):
        self.covers = covers
        self._count = count

    def size(self):
        """Return the number of schedules."""
        return float("inf")

    def sweep(self, limit):
        """Yield the schedules of the sweep."""
        return (Named(f"crash(at={number})") for number in range(min(self._count, limit)))

    def untried(self, tried):
        """Return what is left."""
        return [f"{self._count - len(tried)} visits"]


@pytest.mark.parametrize("covers", [True, False])
def test_the_shards_divide_the_sweep(covers):
    """Each schedule of one machine's sweep is tried by one shard, and nothing is left unsaid."""
    settings = Settings(max_trials=30)
    space, tried = Visits(40, covers=covers), []
    for index in range(1, 5):
        memory = _Memory(lambda schedule: None, settings, space, "schedules")
        _sweep_part(space, memory, settings, Shard(index, 4))
        assert memory.result().untried == (["10 visits"] if covers else [])
        tried += [one.line for one in memory.tried]
    whole = 30 if covers else 12
    assert sorted(tried) == sorted(f"crash(at={number})" for number in range(whole))


@pytest.mark.slow
def test_a_search_in_shards_finds_what_one_machine_finds(sharded):
    """The failure is found, and its schedule is small. A fixed schedule belongs to one shard."""
    session = sharded(SEARCH, 3, whole=False)
    texts = [(session.folder / name).read_text() for name in session.shards]
    assert sum("test_fixed" in text for text in texts) == 1
    assert all("test_unsound" in text for text in texts)
    code, report = session.merge()
    assert code == 1
    assert "test_jobs.py::test_sound: passed" in report
    assert "test_jobs.py::test_unsound: failed (RuntimeError)" in report
    assert "RuntimeError at test_jobs.py:29 in test_unsound: call_failure(at=4" in report


@pytest.mark.slow
def test_ranks_of_torchrun_may_be_shards(example, monkeypatch):
    """Then each rank searches its part. Without ``auto`` the ranks run one job together."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    project = example.with_file("test_jobs.py", SEARCH)
    project.run("--mlchaos-shard=auto", "-k", "test_sound", passed=1)
    refused = project.run("--mlchaos-shard=2/2", "-k", "test_sound", failed=1)
    refused.has("a launcher runs this test in several ranks")


NOTHING_SHOWN = {
    "a fault that never struck": (
        {"silent": ("0: call_failure()",)},
        {"silent": ("0: call_failure()", "1: crash()")},
        "NeverStruck",
    ),
    "faults that struck in some shard": (
        {"silent": ("0: call_failure()",)},
        {"silent": ("1: crash()",)},
        "",
    ),
    "an assertion without work": (
        {"idle": ("Load.assert_slo",)},
        {"idle": ("Load.assert_slo",)},
        "BadArgument",
    ),
    "an assertion that judged in one shard": (
        {"idle": ("Load.assert_slo",)},
        {"judged": ("Load.assert_slo",)},
        "",
    ),
    "no strike where it counts": ({"unstruck": "all fell outside"}, {}, "Vacuous"),
    "a strike where it counts": ({"unstruck": "all fell outside"}, {"struck": True}, ""),
}


@pytest.mark.parametrize("case", NOTHING_SHOWN)
def test_what_no_shard_has_shown_fails_the_whole(case):
    """A fault may strike in one shard alone, so no shard may judge that."""
    one, other, error = NOTHING_SHOWN[case]
    assert _nothing_shown([Searched(**one), Searched(**other)])[0] == error


def test_a_point_that_one_shard_has_reached_is_not_missed():
    """``--mlchaos-require-points`` is judged for the whole."""

    def log(schedule, reached):
        entries = [
            (1, Trial(outcome="passed", probing=True)),
            (2, Point(name="retry", reached=reached, held=reached)),
            (2, Trial(outcome="passed", schedule=schedule)),
            (0, Point(name="retry")),
            (0, End(outcome="passed")),
        ]
        return None, TestLog("test_it", [Line("test_it", *one) for one in entries])

    logs = [log("crash(at=1)", 0), log("crash(at=2)", 1)]
    merged = session_of(merge_searches("test_it", logs, 0))
    assert not missed_points(merged)
    assert [*merged.tests["test_it"].trials] == [1, 2, 3]
    assert missed_points(session_of(merge_searches("test_it", logs[:1], 0)))


def test_merging_needs_none_of_the_heavy_libraries(sharded):
    """It runs on a machine that has none of them."""
    session = sharded(SOUND, 2, whole=False)
    code = (
        "import sys\nfrom pytest_mlchaos.__main__ import main\n"
        f"main(['merge', *{session.shards!r}])\n"
        "print([name for name in ('torch', 'numpy', 'hypothesis') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=session.folder, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "[]"
