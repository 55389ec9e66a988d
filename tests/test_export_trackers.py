"""MLflow and Weights & Biases: a session as runs, in stores on this machine."""

from __future__ import annotations

import re

import pytest

from pytest_mlchaos.core import entries
from pytest_mlchaos.errors import BadArgument, MissingExtra
from pytest_mlchaos.export import mlflow, wandb
from pytest_mlchaos.reports.collector import write_journal
from pytest_mlchaos.reports.exports.figures import of_session, of_test
from tests.session_logs import CRASHES, PASSED, START, everything, session


@pytest.fixture
def journal(tmp_path):
    """A journal with its timings, as pytest writes them."""
    path = tmp_path / "journal.jsonl"
    write_journal(everything(), path)
    return path


@pytest.fixture(params=["sqlite", "folder"])
def store(request, tmp_path, monkeypatch):
    """The address of a store of MLflow."""
    pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    if request.param == "folder":
        return (tmp_path / "mlruns").as_uri()
    pytest.importorskip("sqlalchemy", reason="needs SQLAlchemy")
    pytest.importorskip("alembic", reason="needs alembic")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_the_figures_are_those_of_the_session():
    """Counts, verdicts and measurements."""
    figures = of_session(everything())
    assert figures.is_failed
    assert figures.metrics == {
        "tests": 6,
        "tests.passed": 1,
        "tests.failed": 5,
        "trials": 10,
        "strikes": 6,
        "crash_states": 5,
        "crash_states.tried": 5,
        "crash_states.failed": 2,
        "crash_states.diverged": 2,
        "crash_states.recovered": 1,
        "judgements.passed": 1,
        "judgements.failed": 1,
        "judgements.inconclusive": 1,
        "lost_steps.max": 3,
        "restart_seconds": 0.09,
        "seconds": 12,
        "failures.crash-failed": 1,
        "failures.crash-diverged": 1,
        "failures.NotRecovered": 1,
        "failures.NeverStruck": 1,
        "failures.Inconclusive": 1,
        "failures.call_failure": 1,
        "failures.crash": 1,
    }
    passed = of_test(everything().tests[PASSED])
    assert not passed.is_failed
    assert passed.params == {
        "faults": "crash()",
        "version.python": "3.11.7",
        "version.torch": "2.13.0",
    }
    assert passed.tags["mlchaos.verdict"] == "passed"


def test_what_was_not_measured_is_left_out():
    """Without steps, the lost ones are not known. A trial without an exploration has no states."""
    explored = entries.Exploration(number=0, states=3, tried=3, bad=0)
    figures = of_session(session(("t.py::test", 1, explored)))
    assert figures.metrics["crash_states"] == 3
    assert not {"lost_steps.max", "restart_seconds", "seconds"} & figures.metrics.keys()
    assert "crash_states" not in of_test(everything().tests[PASSED]).metrics


def test_mlflow_has_a_run_for_the_session_and_one_for_each_test(store, journal, tmp_path):
    """Read again with MLflow's own client."""
    from mlflow.tracking import MlflowClient

    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    number = mlflow.export(journal, tracking_uri=store, artifacts=[report])
    client = MlflowClient(store)
    (experiment,) = [e for e in client.search_experiments() if e.name == "pytest-mlchaos"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1 + 6
    whole = client.get_run(number)
    assert whole.info.status == "FAILED"
    assert whole.data.metrics["crash_states.diverged"] == 2
    assert whole.data.params["version.torch"] == "2.13.0"
    assert whole.info.start_time == START * 1000
    assert {one.path for one in client.list_artifacts(number)} == {
        "journal.jsonl",
        "journal.timings.jsonl",
        "report.html",
    }
    tests = {run.data.tags["mlchaos.test"]: run for run in runs if run.info.run_id != number}
    assert {run.data.tags["mlflow.parentRunId"] for run in tests.values()} == {number}
    assert tests[PASSED].info.status == "FINISHED"
    assert tests[CRASHES].info.status == "FAILED"
    assert tests[CRASHES].data.metrics["lost_steps.max"] == 3
    assert tests[CRASHES].data.tags["mlchaos.reproduce"] == '@chaos.crash(state="last.ckpt@0#3")'
    assert tests[CRASHES].info.end_time == (START + 10) * 1000


def test_mlflow_leaves_the_callers_run_alone(store):
    """A second export adds a run to the same experiment."""
    import mlflow as library

    library.set_tracking_uri(store)
    try:
        with library.start_run() as own:
            first = mlflow.export(everything(), tracking_uri=store, tests=False)
            second = mlflow.export(everything(), tracking_uri=store, tests=False)
            assert library.active_run().info.run_id == own.info.run_id
            assert len({first, second, own.info.run_id}) == 3
    finally:
        library.set_tracking_uri(None)


def test_wandb_writes_a_run_offline(journal, tmp_path, monkeypatch):
    """Nothing is sent, and nothing but the figures is in the run's file."""
    library = pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    try:
        number = wandb.export(journal)
    finally:
        library.teardown()  # ends its service
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(number)
    written = (folder / f"run-{number}.wandb").read_bytes()
    for text in (b"crash_states.diverged", b"version.torch", b"2.13.0", b"chaos tests", b"failed"):
        assert text in written
    (table,) = folder.rglob("tests_*.table.json")
    assert "@chaos.gpu_oom(at=7)" in table.read_text()
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not names & {"wandb-metadata.json", "requirements.txt", "output.log", "diff.patch"}


@pytest.mark.parametrize("module", [mlflow, wandb])
def test_a_missing_library_is_named(monkeypatch, module):
    """The error has the command that installs it."""
    import importlib.util

    name = module.__name__.rpartition(".")[2]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(MissingExtra, match=re.escape(f"install 'pytest-mlchaos[{name}]'")):
        module.export(session())


def test_a_journal_that_cannot_be_read_is_an_error(tmp_path):
    """In one line."""
    pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    with pytest.raises(BadArgument, match="the journal cannot be read"):
        mlflow.export(tmp_path / "missing.jsonl")
