"""The journal: its entries, the reader, and the commands that read it."""

from __future__ import annotations

import dataclasses
import json
import re
import signal

import pytest

from pytest_mlchaos.__main__ import main
from pytest_mlchaos.core.entries import (
    KINDS,
    SCHEMA,
    Exploration,
    Line,
    Test,
    Trial,
    parse_line,
    without_times,
)
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.reports.journal_reader import read_journals, timings_path

from .example import entries_in

TRAINED = """
    import torch

    def train(folder, steps=8):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        start, file = 0, folder / "model.pt"
        if file.exists():
            saved = torch.load(file)
            model.load_state_dict(saved["model"])
            start = saved["step"]
        for step in range(start, steps):
            optimizer.zero_grad()
            (model(torch.full((3, 2), step + 1.0)) - 1).pow(2).mean().backward()
            optimizer.step()
            if step % 2:
                torch.save({"model": model.state_dict(), "step": step + 1}, file)
        return model.state_dict()
"""


def test_a_line_reads_back():
    """All fields, with nested lists."""
    entry = Exploration(number=1, states=3, tried=2, bad=1, saves=((1, "a.pt"), (2, "b.pt")))
    line = Line("test_it.py::test", 4, entry)
    assert parse_line(line.text()) == line


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_attribute_is_documented(kind):
    """The docs page is made from the docstrings."""
    for field in dataclasses.fields(KINDS[kind]):
        assert re.search(rf"^        {field.name}: ", KINDS[kind].__doc__, re.M), field.name


def test_texts_have_no_durations():
    """They differ from run to run."""
    told = without_times("checked in 7.51 s: rank 1 ended 300 ms after, 3 steps, v2.5")
    assert told == "checked in … s: rank 1 ended … s after, 3 steps, v2.5"


def test_unknown_kinds_and_keys_are_skipped():
    """A newer version may add some without a new schema."""
    text = json.dumps({"schema": SCHEMA, "kind": "new", "test": "t", "trial": 1})
    assert parse_line(text) is None
    text = json.dumps(
        {"schema": SCHEMA, "kind": "trial", "test": "t", "trial": 1, "outcome": "passed", "new": 1}
    )
    assert parse_line(text) == Line("t", 1, Trial(outcome="passed"))


@pytest.mark.slow
def test_a_search_is_recorded(example):
    """Each trial with its schedule and visits, the strikes, the judgements and the end."""
    pytest.importorskip("torch")
    project = example.with_file("training.py", TRAINED).with_tests("""
        from training import train

        @chaos.crash
        @chaos.settings(max_trials=3, seed=1)
        def test_it(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()
    """)
    project.run("--mlchaos-journal=j.jsonl", fresh=True, passed=1)
    path = project.pytester.path / "j.jsonl"
    trials = entries_in(path, "trial")
    assert len(trials) == 4
    assert trials[0]["probing"] is True
    assert "schedule" not in trials[0]
    assert trials[0]["visits"]["train.step"] == 8
    strikes = entries_in(path, "strike")
    assert {entry["trial"] for entry in strikes} == {2, 3, 4}
    for trial in trials[1:]:
        struck = [one["visit"] for one in strikes if one["trial"] == trial["trial"]]
        assert all(str(visit) in trial["schedule"] for visit in struck)
    judgements = entries_in(path, "judgement")
    assert [one["oracle"] for one in judgements] == ["Run.assert_recovered"] * 4
    assert {one["verdict"] for one in judgements} == {"passed"}
    results = entries_in(path, "result")
    assert [len(one["attempts"]) - one.get("struck", 0) for one in results] == [1] * 4
    (end,) = entries_in(path, "test")
    assert end["outcome"] == "passed"
    assert end["file"] == "test_it.py"
    assert end["trials"] == 4
    assert end["strikes"] == len(strikes)
    assert end["environment"]["python"]


@pytest.mark.slow
def test_losses_are_relative_to_the_first(example):
    """The journal holds no values of the user. A fault shows as a curve that leaves the golden one."""
    pytest.importorskip("torch")
    project = example.with_file("training.py", TRAINED).with_tests("""
        from training import train

        @chaos.nan_gradient(at=4)
        def test_it(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()
    """)
    project.run("--mlchaos-journal=j.jsonl", fresh=True, failed=1)
    curves = entries_in(project.pytester.path / "j.jsonl", "curve")
    golden = next(one["values"] for one in curves if one.get("golden"))
    faulted = next(one["values"] for one in curves if not one.get("golden"))
    assert len(golden) == len(faulted) == 8
    assert golden[0] == 1.0
    assert golden[:5] == faulted[:5]
    assert faulted[5:] == [None] * 3
    project.run("--mlchaos-journal=j.jsonl", "--mlchaos-show-values", fresh=True, failed=1)
    shown = entries_in(project.pytester.path / "j.jsonl", "curve")
    assert next(one["values"] for one in shown if one.get("golden"))[0] != 1.0


@pytest.mark.slow
def test_losses_of_fresh_processes_are_recorded(example):
    """Each attempt, and the golden run, is a process of its own."""
    pytest.importorskip("torch")
    project = example.with_file("training.py", TRAINED).with_tests("""
        from training import train

        @chaos.call_failure(target="torch:save", at=1)
        @chaos.settings(isolation="process")
        def test_it(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()
    """)
    project.run("--mlchaos-journal=j.jsonl", fresh=True, passed=1)
    curves = entries_in(project.pytester.path / "j.jsonl", "curve")
    golden = next(one for one in curves if one.get("golden"))
    faulted = next(one for one in curves if not one.get("golden"))
    assert golden["attempts"] == [8]
    assert faulted["attempts"] == [4, 6]
    assert faulted["values"] == golden["values"][:4] + golden["values"][2:]


@pytest.mark.slow
def test_an_exploration_is_recorded(example):
    """Each state with its verdict, and the line to paste."""
    pytest.importorskip("torch")
    project = example.with_file("training.py", TRAINED).with_tests("""
        from training import train

        def test_it(mlchaos, tmp_path):
            mlchaos.explore_crashes(train, tmp_path).assert_recovers(max_lost_steps=3)
    """)
    outcome = project.run("--mlchaos-journal=j.jsonl", fresh=True, failed=1)
    path = project.pytester.path / "j.jsonl"
    (exploration,) = entries_in(path, "exploration")
    states = entries_in(path, "state")
    assert exploration["states"] == exploration["tried"] == len(states)
    assert exploration["bad"] == sum(one["verdict"] != "recovered" for one in states) > 0
    assert exploration["saves"] == [
        [2, "model.pt"],
        [4, "model.pt"],
        [6, "model.pt"],
        [8, "model.pt"],
    ]
    bad = next(one for one in states if one["verdict"] == "failed")
    assert bad["cause"] == "EOFError"
    assert "training.py" in bad["place"]
    (judgement,) = entries_in(path, "judgement")
    assert judgement["oracle"] == "CrashReport.assert_recovers"
    assert judgement["verdict"] == "failed"
    assert judgement["arguments"] == {"max_lost_steps": 3}
    (end,) = entries_in(path, "test")
    assert end["reproduce"] in outcome.text
    assert end["replay"] in outcome.text
    assert "training.py" in end["place"]
    timings = entries_in(timings_path(path), "timing")
    assert {one["of"] for one in timings} >= {"test", "trial", "result", "exploration", "state"}
    assert "checked in" in next(one["message"] for one in timings if one["of"] == "test")


@pytest.mark.slow
def test_requests_are_recorded(example):
    """On the virtual clock, latencies are the same each time."""
    project = example.with_tests("""
        import time

        def app(request):
            time.sleep(0.01)
            return request

        @chaos.latency_spike(delay="1s", at=2)
        def test_it(mlchaos):
            mlchaos.serve(app).drive(range(4)).assert_slo(p99="2s", error_rate=0.1)
    """)
    project.run("--mlchaos-journal=j.jsonl", passed=1)
    path = project.pytester.path / "j.jsonl"
    (requests,) = entries_in(path, "requests")
    assert requests["latencies"] == [0.01, 0.01, 1.01, 0.01]
    assert requests["struck"] == [2]
    (judgement,) = entries_in(path, "judgement")
    assert judgement["arguments"] == {"p99": "2s", "error_rate": 0.1}


DOOR = """
    from pytest_mlchaos import Fault
    from typing import ClassVar

    @chaos.register
    class slow_door(Fault):
        site: ClassVar[str] = "door.open"
        def apply(self, visit): return 1.0
"""
"""A fault of the tests' own, at a site of their own."""
SEEDED = (
    DOOR
    + """
    def opened(mlchaos):
        return sum(mlchaos.visit("door.open", 1) for _ in range(6))

    @chaos.slow_door
    @chaos.settings(max_trials=6)
    def test_one(mlchaos): assert opened(mlchaos) == 6
    @chaos.slow_door(at=2)
    def test_two(mlchaos): assert opened(mlchaos) == 7
"""
)


@pytest.mark.parametrize("arguments", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)])
def test_the_journal_is_the_same_byte_for_byte(example, arguments):
    """All that depends on time is in the file next to it."""
    if arguments:
        pytest.importorskip("xdist")
    project = example.with_tests(SEEDED)
    path, contents = project.pytester.path / "j.jsonl", []
    for options in ((), arguments):
        options = ("--mlchaos-seed=3", "--mlchaos-journal=j.jsonl", *options)
        project.run(*options, passed=1, failed=1)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert len(contents[0].splitlines()) > 15


@pytest.mark.slow
def test_commands_read_journals(example, capsys):
    """``report`` prints the rows of the session, ``merge`` puts journals together."""
    project = example.with_tests(SEEDED)
    for name in ("one", "two"):
        project.run("-k", name, f"--mlchaos-journal={name}.jsonl")
    project.run("--mlchaos-seed=0", "--mlchaos-journal=both.jsonl")
    folder = project.pytester.path
    both = [str(folder / f"{name}.jsonl") for name in ("one", "two")]
    assert main(["merge", *both, str(folder / "one.jsonl"), "-o", str(folder / "m.jsonl")]) == 0
    merged = read_journals([folder / "m.jsonl"])
    assert list(merged.tests) == ["test_it.py::test_one", "test_it.py::test_two"]
    assert len(list(merged.lines())) == sum(
        len(file.read_text().splitlines())
        for name in both
        for file in (folder / name, timings_path(folder / name))
    )
    assert merged.tests["test_it.py::test_two"].seconds("test") is not None
    capsys.readouterr()
    pytest.importorskip("vl_convert")
    assert main(["report", str(folder / "m.jsonl")]) == 0
    assert re.search(r"test_one +\d+ trials +all pass +.* s", capsys.readouterr().out)


@pytest.mark.slow
def test_a_killed_session_leaves_a_journal(example):
    """The trials that ended are in it, and half a line at its end is reported."""
    project = example.with_tests(
        DOOR
        + """
    import os, signal
    trials = []

    @chaos.slow_door
    def test_it(mlchaos):
        for _ in range(9): mlchaos.visit("door.open", 1)
        trials.append(1)
        if len(trials) == 4: os.kill(os.getpid(), signal.SIGKILL)
    """
    )
    folder = project.pytester.path
    ended = project.run("--mlchaos-journal=j.jsonl", interpreter=True)
    assert ended.exit_code == -signal.SIGKILL
    path = folder / "j.jsonl"
    assert len(entries_in(path, "trial")) == 3
    with open(path, "a") as file:
        file.write('{"schema": 1, "kind": "tri')
    session = read_journals([path])
    assert session.tests["test_it.py::test_it"].outcome == "running"
    assert len(session.tests["test_it.py::test_it"].trials) == 3
    assert "incomplete, as a killed session leaves it" in session.problems[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 99, "kind": "trial"}\n', "line 1: schema 99 is newer than 1. Install a newer"),
        ("a,b,c\n", "is not a journal of pytest-mlchaos"),
        ('{"fault": "crash()", "site": "train.step"}\n', "is not a journal of pytest-mlchaos"),
        (None, "the journal cannot be read: No such file or directory"),
    ],
)
def test_a_bad_journal_is_one_clear_line(tmp_path, capsys, content, message):
    """Not a traceback."""
    path = tmp_path / "j.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadArgument, match=re.escape(message)):
        read_journals([path])
    with pytest.raises(SystemExit):
        main(["merge", str(path), "-o", str(tmp_path / "m.jsonl")])
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_test_is_recorded(example):
    """Its trials so far, and its end."""
    project = example.with_tests(
        DOOR
        + """
    trials = []

    @chaos.slow_door
    def test_it(mlchaos):
        for _ in range(9): mlchaos.visit("door.open", 1)
        trials.append(1)
        if len(trials) == 4: raise KeyboardInterrupt
    """
    )
    project.run("--mlchaos-journal=j.jsonl", fresh=True)
    path = project.pytester.path / "j.jsonl"
    (end,) = entries_in(path, "test")
    assert end["outcome"] == "interrupted"
    assert len(entries_in(path, "trial")) == end["trials"] == 4


def test_tests_that_did_not_start_are_recorded(example):
    """They are skipped, or a fixture failed. A report must not leave them out."""
    project = example.with_tests("""
        import pytest

        @pytest.fixture
        def broken(): raise OSError("no disk")

        @chaos.call_failure(target="json:dumps")
        def test_error(broken): pass
        @pytest.mark.skip(reason="later")
        @chaos.call_failure(target="json:dumps")
        def test_skipped(): pass
        @pytest.mark.skip(reason="not ours")
        def test_plain(): pass
    """)
    project.run("--mlchaos-journal=j.jsonl", errors=1, skipped=2)
    ends = entries_in(project.pytester.path / "j.jsonl", "test")
    assert [(one["test"], one["outcome"], one.get("error", "")) for one in ends] == [
        ("test_it.py::test_error", "failed", "OSError"),
        ("test_it.py::test_skipped", "skipped", ""),
    ]


def test_the_end_names_the_environment_and_the_test():
    """Fields that readers rely on."""
    end = Test(outcome="failed", file="a.py", line=3)
    assert end.as_dict() == {"outcome": "failed", "file": "a.py", "line": 3}
