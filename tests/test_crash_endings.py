"""The files at the ends of runs: those of unsound jobs whose value says nothing are found out,
those of sound ones are not. Torch-free.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import sqlite3
import textwrap
import zipfile
import zlib
from pathlib import Path

import pytest

from pytest_mlchaos.crashes import end_digests
from pytest_mlchaos.crashes.compare_files import says_nothing
from pytest_mlchaos.crashes.end_digests import endings
from pytest_mlchaos.crashes.model import Content, CrashState, File, RunResult
from pytest_mlchaos.crashes.verdicts import CrashJudge
from pytest_mlchaos.runs.traces import StepRecord, Trace


@pytest.mark.parametrize("value", [None, "done", 0, True, Path("out"), {"step": 6, "files": ["a"]}])
def test_a_value_that_is_the_same_whatever_was_trained_says_nothing(value):
    """Texts, whole numbers and paths, alone and in containers."""
    assert says_nothing(value)


@pytest.mark.parametrize("value", [0.5, {"loss": 0.5}, object(), [1, 0.5]])
def test_a_value_that_may_be_a_result_says_something(value):
    """A real number does."""
    assert not says_nothing(value)


def of(golden, mine, *, value=None, grown=(), read=(), second=None, compare=None):
    """(verdict, detail, notes) of one run that left these texts, where a golden one left those."""

    def ran(texts, **more):
        files = {path: text.encode() for path, text in texts.items()}
        return RunResult(value=value, files=files, texts=files, **more)

    judge = CrashJudge(ran(golden, grown=frozenset(grown), saved=("x",)), compare=compare)
    judge.differs(ran(golden if second is None else second))
    state = CrashState("a#0", 0, "a", "a complete", {path: File(Content(1, b"1")) for path in mine})
    (outcome,) = judge.finish([judge.outcome(state, ran(mine, read=frozenset(read) or None))])
    return (
        outcome.verdict,
        "" if outcome.divergence is None else outcome.divergence.detail,
        judge.notes,
    )


def test_a_file_that_differs_is_found_where_the_value_says_nothing_or_a_run_reads_it():
    """And not where the value is a result and no run reads the file."""
    assert of({"a": "1"}, {"a": "2"}) == ("diverged", "a has different content at the end", [])
    assert of({"a": "1"}, {}) == ("diverged", "a is missing at the end", [])
    assert of({"a": "1"}, {"a": "2"}, value=0.5)[0] == "recovered"
    assert of({"a": "1"}, {"a": "2"}, value=0.5, read=["a"])[0] == "diverged"
    assert (
        of({"a": "1", "t": "1"}, {"a": "1", "t": "3"}, second={"a": "1", "t": "2"})[0]
        == "recovered"
    )


@pytest.mark.parametrize(
    ("file", "verdict"), [("last.pt", "recovered"), ("metrics.json", "diverged")]
)
def test_a_checkpoint_is_judged_by_the_steps_where_there_are_any(file, verdict):
    """It also holds what nothing uses. A text that a run reads is compared."""

    def ran(content, **more):
        texts = {"metrics.json": content} if file == "metrics.json" else {}
        trace = Trace([StepRecord({"parameters": b"1"})], {"parameters": b"2"})
        return RunResult(value=0.5, trace=trace, files={file: content}, texts=texts, **more)

    judge = CrashJudge(ran(b"golden"))
    judge.differs(ran(b"golden"))
    state = CrashState("a#0", 0, file, f"{file} complete", {file: File(Content(1, b"1"))})
    (outcome,) = judge.finish([judge.outcome(state, ran(b"other", read=frozenset([file])))])
    assert outcome.verdict == verdict


LOG = "step,loss\n1,0.5\n2,0.4\n3,0.3\n"


@pytest.mark.parametrize(
    ("mine", "verdict", "says"),
    [
        ("step,loss\n1,0.5\n2,0.4\n2,0.4\n3,0.3\n", "recovered", "log.csv has 1 line twice"),
        (
            "step,loss\n1,0.5\n2,0.4\n2,0.42,0.4\n3,0.3\n",
            "recovered",
            "log.csv has 1 line more than without a crash",
        ),
        (
            "step,loss\n1,0.5\nstep,loss\n1,0.5\n2,0.4\n3,0.3\n",
            "recovered",
            "log.csv has 2 lines twice",
        ),
        (
            "step,loss\n1,0.5\n3,0.3\n",
            "diverged",
            "log.csv lacks 1 of the 4 lines that it has without a crash",
        ),
        (
            "step,loss\n1,0.5\n1,0.5\n3,0.3\n",
            "diverged",
            "log.csv lacks 1 of the 4 lines that it has without a crash",
        ),
    ],
)
def test_a_log_may_say_lines_twice_and_must_have_them_all(mine, verdict, says):
    """The report notes what is there twice; a line that a crash has cut may stand in front of the
    one that says it again.
    """
    found = of({"log.csv": LOG}, {"log.csv": mine}, grown=["log.csv"])
    assert found[0] == verdict
    assert says in (found[1], *found[2])
    # It was rewritten each time, so it is not a log.
    assert of({"log.csv": LOG}, {"log.csv": mine})[0] == "diverged"


def test_each_run_may_make_the_next_of_numbered_directories():
    """The golden run has only the first; where it has several itself, they are checkpoints."""
    golden, mine = (
        {"logs/version_0/m.csv": "1\n2\n"},
        {"logs/version_0/m.csv": "1\n", "logs/version_1/m.csv": "2\n"},
    )
    assert of(golden, mine) == (
        "recovered",
        "",
        ["logs/version_0: not compared, because each run makes a new directory"],
    )
    assert of(golden, {"logs/version_0/m.csv": "1\n"})[0] == "diverged"
    assert (
        of({"step-1/w": "1", "step-2/w": "2"}, {"step-1/w": "1", "step-3/w": "2"})[0] == "diverged"
    )


def test_compare_names_the_files_that_count():
    """Each as it is, logs too; and no others."""
    golden, mine = {"a": "1", "log.csv": LOG}, {"a": "2", "log.csv": LOG + "3,0.3\n"}
    assert (
        of(golden, mine, compare=["*.csv"], grown=["log.csv"])[1]
        == "log.csv has different content at the end"
    )
    assert of(golden, mine, compare=["b"])[0] == "recovered"
    assert of(golden, mine, value=0.5, compare=["a"])[1] == "a has different content at the end"


def test_files_are_told_by_their_meaning(tmp_path):
    """A pickle by its values, not by which texts it shares; JSON by its entries; a database by its
    rows.
    """

    def told(data):
        (tmp_path / "file").write_bytes(data)
        return endings(tmp_path)[0]["file"]

    fresh = {"step": 1, "groups": [{"lr": 0.1, "step": 2}, {"lr": 0.1, "step": 2}]}
    loaded = pickle.loads(pickle.dumps(fresh))
    loaded["groups"][1] = {"".join(["l", "r"]): 0.1, "step": 2}
    assert pickle.dumps(fresh) != pickle.dumps(loaded)
    for protocol in range(2, 6):
        assert told(pickle.dumps(fresh, protocol)) == told(pickle.dumps(loaded, protocol))
        assert told(pickle.dumps(fresh, protocol)) != told(
            pickle.dumps({**fresh, "step": 2}, protocol)
        )
    assert (
        told(json.dumps({"a": 1, "b": 2}).encode())
        == told(json.dumps({"b": 2, "a": 1}).encode())
        != told(b'{"a": 1, "b": 3}')
    )
    assert told(b"\x80 not a pickle") != told(b"\x80 not a pickle either")
    for compress in (zlib.compress, gzip.compress, bz2.compress, lzma.compress):
        assert told(compress(pickle.dumps(fresh))) == told(compress(pickle.dumps(loaded)))
        assert told(compress(pickle.dumps(fresh))) != told(compress(pickle.dumps({"step": 2})))
        cut = compress(pickle.dumps(fresh))[:-9]
        assert told(cut) != told(cut[:-1])
    pages = []
    for extra in (0, 2, 2):
        (tmp_path / "file").unlink()
        with sqlite3.connect(tmp_path / "file") as database:
            database.execute("create table t (a)")
            database.execute("insert into t values (1)")
            for _ in range(extra):
                database.execute("insert into t values (2)")
                database.commit()
            database.execute("delete from t where a = 2")
        database.close()
        pages.append(((tmp_path / "file").read_bytes(), endings(tmp_path)[0]["file"]))
    assert pages[0][0] != pages[1][0]
    assert pages[0][1] == pages[1][1]


def test_the_name_of_a_file_stands_for_what_that_file_holds(tmp_path):
    """A run that finds a name taken chooses the next one. A name of another save is another
    content.
    """

    def told(name, weights):
        (tmp_path / name).write_bytes(
            pickle.dumps({"weights": weights, "best": str(tmp_path / name)})
        )
        (tmp_path / "last").write_bytes(
            pickle.dumps({"best": str(tmp_path / name), "scores": {str(tmp_path / name): 0.5}})
        )
        return endings(tmp_path)[0]["last"]

    first = told("step-6", [1.0])
    assert told("step-6-v1", [1.0]) == first
    assert told("step-6-v1", [2.0]) != first
    (tmp_path / "step-6-v1").unlink()
    assert endings(tmp_path)[0]["last"] != first


def test_the_folder_in_an_archive_is_no_content(tmp_path):
    """Torch calls it as the file is called at first, which may be a temporary name."""
    for number, folder in enumerate(["model.tmp", "archive"]):
        with zipfile.ZipFile(tmp_path / str(number), "w") as archive:
            archive.writestr(f"{folder}/data", b"1")
    found = endings(tmp_path)[0]
    assert found["0"] == found["1"]


SUBJECTS = '''
import csv, itertools, json, os, pathlib, pickle, sqlite3
import pytest

def put(file, state):
    tmp = file.with_name(file.name + ".tmp")
    tmp.write_bytes(pickle.dumps(state))
    os.replace(tmp, file)

def start(workdir):
    file = workdir / "last.pkl"
    return pickle.loads(file.read_bytes()) if file.exists() else {"step": 0, "sum": 0.0, "seen": 0.0}

def forgets(workdir, returns):
    """Its checkpoint lacks what it has seen."""
    state = start(workdir)
    state["seen"] = 0.0
    while state["step"] < 3:
        state = {"step": state["step"] + 1, "sum": state["sum"] + state["step"], "seen": state["seen"] + 1}
        put(workdir / "last.pkl", state)
    return returns

def logged(workdir):
    """Appends to a log before it saves."""
    state = start(workdir)
    while state["step"] < 3:
        state = {"step": state["step"] + 1, "sum": state["sum"] + state["step"], "seen": 0.0}
        with (workdir / "log.csv").open("a") as log:
            log.write(f"{state['step']},{state['sum']}\\n")
        put(workdir / "last.pkl", state)

def numbered(workdir):
    """Each run has a folder of its own, and event files that are named by a clock."""
    folder = next(path for n in itertools.count() if not (path := workdir / "logs" / f"version_{n}").exists())
    folder.mkdir(parents=True)
    state = start(workdir)
    with (folder / "metrics.csv").open("w") as metrics, (folder / f"events.{os.urandom(4).hex()}.0").open("wb") as events:
        while state["step"] < 3:
            state = {"step": state["step"] + 1, "sum": state["sum"] + state["step"], "seen": 0.0}
            metrics.write(f"{state['step']}\\n"); metrics.flush()
            events.write(b"\\0%d" % state["step"]); events.flush()
            put(workdir / "last.pkl", state)
    return "done"

def database(workdir):
    """Rows of one transaction a step."""
    rows = sqlite3.connect(workdir / "rows.db")
    rows.execute("create table if not exists t (step integer primary key, sum real)"); rows.commit()
    (step, total), = rows.execute("select count(*), coalesce(sum(sum), 0) from t")
    for number in range(step, 3):
        total += number
        rows.execute("insert into t values (?, ?)", (number, total)); rows.commit()
    rows.close()
    return True
'''


@pytest.fixture
def project(example):
    """A project with these subjects."""
    return lambda tests: example.with_tests(SUBJECTS + textwrap.dedent(tests))


@pytest.mark.slow
def test_files_are_compared_where_the_returned_value_says_nothing(project):
    """A loss may show in the checkpoint alone. ``compare=[]`` leaves the files out."""
    project("""
        @pytest.mark.parametrize("returns", [None, "done", 0, True, 0.5])
        def test_it(mlchaos, tmp_path, returns):
            report = mlchaos.explore_crashes(forgets, tmp_path, returns, isolation="in-process")
            assert report.failures and {str(o.divergence) for o in report.failures} == {
                "step 0: files (last.pkl has different content at the end)"
            }

        def test_other(mlchaos, tmp_path):
            mlchaos.explore_crashes(forgets, tmp_path, None, isolation="in-process", compare=[]).assert_recovers()
    """).run(passed=6)


@pytest.mark.slow
def test_files_of_sound_jobs_may_differ_as_such_files_do(project):
    """Logs, numbered folders, event files, pages of databases."""
    project("""
        def test_log(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(logged, tmp_path, isolation="in-process", torn_writes=False)
            report.assert_recovers()
            assert "log.csv has 1 line twice" in str(report)

        @pytest.mark.parametrize("job", [numbered, database])
        def test_it(mlchaos, tmp_path, job):
            mlchaos.explore_crashes(job, tmp_path, isolation="in-process").assert_recovers()
    """).run(passed=3)


def test_checkpoint_with_known_bytes_is_not_parsed_again(tmp_path, monkeypatch):
    """Most runs end with the same files."""
    (tmp_path / "a").write_bytes(pickle.dumps({"weights": [1.5] * 99}))
    before = endings(tmp_path)
    monkeypatch.setattr(end_digests, "pickle_digest", None)
    assert endings(tmp_path) == before


def test_pickle_that_names_a_file_has_a_new_digest_when_that_file_changes(tmp_path):
    """Its own bytes stay the same. In a different directory, the text is not a file's name."""
    work, other = tmp_path / "work", tmp_path / "other"
    for folder in work, other:
        folder.mkdir()
        (folder / "best").write_bytes(pickle.dumps(f"{work}/weights"))
    (work / "weights").write_bytes(b"1")
    elsewhere = endings(other)[0]["best"]
    first = endings(work)[0]["best"]
    (work / "weights").write_bytes(b"2")
    assert endings(work)[0]["best"] != first
    assert endings(other)[0]["best"] == elsewhere not in (first, endings(work)[0]["best"])
