"""Reports hide the user's data: keys, values, messages."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pytest_mlchaos import (
    assert_converged,
    assert_no_drift,
    assert_not_worse,
    assert_same_state,
)
from pytest_mlchaos.__main__ import main
from pytest_mlchaos.core import privacy
from pytest_mlchaos.errors import Drifted, NotConverged, StateDiffers, Worse
from pytest_mlchaos.reports.exports.github import MAX_ANNOTATIONS

from . import export_all
from .canaries import KINDS, canaries, spellings

COUNT = int(os.environ.get("MLCHAOS_CANARIES", "48"))
"""Canaries that the examples compare as states; ``nox -s privacy`` takes 1,000."""
EACH = COUNT if COUNT > 100 else len(KINDS)
"""Canaries that they push through each entry point: one of each kind, or all."""

HAS_COV = importlib.util.find_spec("pytest_cov") is not None
ROOT = Path(__file__).parent.parent
WRITTEN = (
    "told.txt",
    "journal.jsonl",
    "summary.md",
    "x.sarif",
    "bundle/*/*.md",
    "bundle/*/*.py",
    "incidents/*.md",
    "evidence/journal.jsonl",
    "evidence/report.md",
    "evidence/not-simulated.json",
    "again/*.md",
    "merged.jsonl",
)
"""The files that a session writes, and the commands that read its journal."""
MEASURED = (
    *("journal.timings.jsonl", "bundle/*/*.json*", "report.html"),
    *("evidence/*", "merged.timings.jsonl"),
)
"""Those that have times, coordinates or hashes: long numbers, which hold any short one by chance."""
SHORT_NUMBER = re.compile(r"\d{1,9}")
COMMON = """
    import json
    import pytest
    from pytest_mlchaos import Fault, chaos, assert_same_state
    from pytest_mlchaos.errors import MlchaosError
    from canaries import canaries

    SECRETS = canaries(COUNT)
    FEW = SECRETS[:EACH]

    def told(function, *args, **keywords):
        \"\"\"Write what the tool says of a failure: its own messages, and its notes on others.\"\"\"
        try:
            function(*args, **keywords)
        except Exception as error:
            with open("told.txt", "a") as file:
                text = str(error) if isinstance(error, MlchaosError) else ""
                print(type(error).__name__, text, *getattr(error, "__notes__", []), file=file)
            return
        raise AssertionError("it did not fail")

    @pytest.fixture(params=range(len(FEW)))
    def secret(request):
        return FEW[request.param]

"""
PROJECT = """
    @chaos.register
    class Leaky(Fault):
        site = "own.site"
        broken: bool = False
        number: int = 0

        def apply(self, visit):
            if self.broken:
                return {}[FEW[self.number]]
            visit.note(number=self.number)
            if self.number % 2:
                visit.fail(ConnectionError(f"lost {FEW[self.number]}"))
            else:
                raise ConnectionError(f"lost {FEW[self.number]}")

    def test_states(mlchaos):
        for value in SECRETS:
            told(assert_same_state, {}, {value: 1})
            told(assert_same_state, {value: 1}, {})
            told(assert_same_state, {value: {"w": 1.0}}, {value: {"w": 2.0}})
            told(assert_same_state, [value], [type(value)()])
            told(assert_same_state, [type(value)()], [value])
            told(assert_same_state, {value}, set())

    def test_runs_that_fail_by_themselves(mlchaos, tmp_path, secret):
        def fails():
            raise ValueError(f"cannot read the row of {secret}")
        told(lambda: mlchaos.run(fails).golden)
        told(lambda: mlchaos.pipeline(fails).assert_complete())

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    def test_a_run_under_a_fault(mlchaos, secret):
        def subject():
            try:
                json.dumps(1)
                return {secret: 0.0, "kept": secret}
            except ConnectionError:
                return {"kept": 1}
        run = mlchaos.run(subject)
        told(run.assert_recovered)
        told(run.assert_converged, below=1.0)
        told(run.assert_no_drift, key="missing")

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    def test_a_pipeline_under_a_fault(mlchaos, secret):
        def subject():
            try:
                json.dumps(1)
            except ConnectionError:
                raise KeyError(secret) from None
            return [secret]
        run = mlchaos.pipeline(subject)
        told(run.assert_complete)

    @pytest.mark.parametrize("number", [pytest.param(number, marks=chaos.leaky(at=0, number=number)) for number in range(4)])
    def test_a_fault_of_the_users(mlchaos, number):
        secret = FEW[number]
        def subject():
            try:
                mlchaos.visit("own.site", 1)
            except ConnectionError as error:
                raise RuntimeError(f"wrapped {error}") from error
            return secret
        told(mlchaos.run, subject, max_restarts=0)

    @chaos.leaky(at=0, broken=True)
    def test_a_broken_fault_of_the_users(mlchaos):
        mlchaos.visit("own.site", 1)

    @chaos.call_failure(target="json:dumps", error="ConnectionError")
    def test_an_exploration(secret):
        try:
            json.dumps(1)
        except ConnectionError:
            raise RuntimeError(f"lost {secret}") from None

    def test_crash_states(mlchaos, tmp_path, secret):
        def subject(folder):
            path = folder / "state.txt"
            if path.exists() and len(path.read_text()) < 5:
                raise ValueError(f"cannot read {secret}")
            path.write_text(str(secret) * 9)
            return {secret: 1, "text": path.stat().st_size}
        report = mlchaos.explore_crashes(subject, tmp_path)
        told(report.assert_recovers)

    @pytest.mark.parametrize("number", range(8))  # one of each kind: failures take long
    def test_crash_states_that_fail(mlchaos, tmp_path, number):
        secret = FEW[number]
        def subject(folder):
            path = folder / "state.txt"
            if path.exists() and len(path.read_text()) < 5:
                raise ValueError(f"cannot read {secret}")
            path.write_text(str(secret) * 9)
            return {secret: 1}
        mlchaos.explore_crashes(subject, tmp_path).assert_recovers()

    @chaos.call_failure(target="json:dumps", error="ConnectionError")
    @pytest.mark.parametrize("number", range(8))
    def test_runs_that_fail(mlchaos, number):
        secret = FEW[number]
        def subject():
            try:
                json.dumps(1)
            except ConnectionError:
                raise KeyError(secret) from None
            return secret
        mlchaos.run(subject).assert_recovered()

    def test_services(mlchaos, secret):
        def answer(request):
            raise LookupError(f"no row for {secret}")
        load = mlchaos.serve(answer).drive([secret, secret])
        told(load.assert_slo, error_rate=0.0)
        told(mlchaos.serve, str(secret))

    @chaos.call_failure(target="json:dumps", where=lambda visit: {}[SECRETS[0]])
    def test_a_predicate_that_fails():
        json.dumps(1)

    @chaos.corrupt_batch(kind="nan", at=0)
    def test_batches(mlchaos, secret):
        import numpy as np
        told(list, mlchaos.batches([{secret: np.ones(3, "i8")}]))
        list(mlchaos.batches([{secret: np.ones(3)}]))
"""
HEAVY = """
    import os
    import random
    import numpy as np

    def test_a_run_in_fresh_processes(mlchaos, secret):
        def fails():
            raise ValueError(f"cannot read {secret}")
        told(mlchaos.run, fails, isolation="process")
        told(lambda: mlchaos.run(fails, isolation="process").golden)

    @chaos.crash(at=0)
    def test_a_world(mlchaos, tmp_path):
        value = FEW[0]
        def fails(folder):
            if os.environ["RANK"] == "1":
                raise ValueError(f"cannot read {value}")
            return {value: value}
        run = mlchaos.world(ranks=2).run(fails, tmp_path)
        told(run.assert_finished)
        told(run.assert_recovered)

    @chaos.settings(allow_quiet=True)
    def test_ranks_that_differ(mlchaos, tmp_path):
        value = FEW[1]
        run = mlchaos.world(ranks=2).run(lambda folder: {value: value if os.environ["RANK"] == "1" else type(value)()}, tmp_path)
        told(run.assert_in_sync)

    @pytest.mark.parametrize("isolation", ["in-process", "process"])
    def test_crash_states_of_the_undetermined(mlchaos, tmp_path, isolation):
        for number, value in enumerate(FEW[:3]):
            folder = tmp_path / str(number)
            folder.mkdir()
            def subject(folder):
                (folder / "state.txt").write_text("x")
                return {value: random.SystemRandom().random(), "text": f"{value}{random.SystemRandom().random()}"}
            told(mlchaos.explore_crashes, subject, folder, isolation=isolation)
            def fails(folder):
                (folder / "state.txt").write_text("x")
                raise ValueError(f"cannot read {value}")
            told(mlchaos.explore_crashes, fails, folder, isolation=isolation)

    def test_crash_states_in_fresh_processes(mlchaos, tmp_path):
        value = FEW[2]
        def subject(folder):
            path = folder / "state.txt"
            if path.exists() and len(path.read_text()) < 5:
                raise ValueError(f"cannot read {value}")
            path.write_text(str(value) * 9)
            return {value: 1}
        told(mlchaos.explore_crashes(subject, tmp_path, isolation="process").assert_recovers)

    @chaos.settings(timeout=1, clock="real")
    def test_a_subject_that_hangs(mlchaos, tmp_path):
        import time
        value = FEW[3]
        def subject(password):
            (tmp_path / "x").write_text("x")
            time.sleep(30)
        mlchaos.run(subject, value)

    @chaos.missing_values(target="test_it:table", at=0)
    def test_tables(mlchaos, secret):
        assert list(table(secret)) == [secret, "income"]

    @chaos.outliers(target="test_it:table", at=0, column="missing")
    def test_tables_without_that_column(mlchaos, secret):
        told(table, secret)

    @chaos.schema_drift(target="test_it:table", kind="renamed", at=0)
    def test_pipelines_of_tables(mlchaos, secret):
        run = mlchaos.pipeline(table, secret)
        told(run.assert_same_output)
        told(run.assert_no_drift)

    def table(secret):
        import pandas as pd
        return pd.DataFrame({secret: np.arange(40.0), "income": np.arange(40.0)})

    @chaos.typos(target="test_it:prompts", at=0)
    def test_texts(mlchaos, secret):
        assert prompts(secret)

    @chaos.truncation(target="test_it:numbers", at=0)
    def test_no_texts(mlchaos, secret):
        told(numbers, secret)

    def prompts(secret):
        return {secret: [f"the word is {secret}"], "role": "user"}

    def numbers(secret):
        return {secret: 3}

    def fetch():
        return 1

    @chaos.call_failure(target="test_it:fetch", error="ConnectionError", at=1)
    def test_apps(mlchaos, secret):
        async def app(scope, receive, send):
            while scope["type"] == "lifespan":
                await send({"type": f"lifespan.{(await receive())['type'].split('.')[1]}.complete"})
            body = (await receive())["body"]
            try:
                fetch()
            except ConnectionError:
                raise RuntimeError(f"lost {secret} {body}") from None
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps({str(secret): 1}).encode()})
        from urllib.parse import quote
        path = quote(str(secret), safe="")
        request = ("POST", f"/users/{path}?token={path}", {str(secret): secret})
        load = mlchaos.serve(app, lifespan=False).drive([request] * 2)
        told(load.assert_slo, error_rate=0.0)
        told(load.assert_fallback, json={str(secret): 2})
        told(load.assert_fallback, text=str(secret))
        told(lambda: load.replies[1].json)
"""
NUMBERS = """
    NUMBERS = [float(value) for value in FEW if isinstance(value, (int, float))]

"""
CAUSES = """
    def described(error):
        # An error can say values in each of these ways.
        error.add_note(f"the rows were {FEW}")
        error.values = FEW
        return error

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    def test_a_chain_of_errors(mlchaos):
        def subject():
            try:
                json.dumps(1)
            except ConnectionError as error:
                inner = described(ValueError(FEW, f"no row {FEW}"))
                raise described(RuntimeError(f"wrapped {FEW}")) from inner
        mlchaos.run(subject)

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    def test_a_group_of_errors_in_the_body():
        try:
            json.dumps(1)
        except ConnectionError:
            errors = [described(KeyError(value)) for value in FEW]
            errors += [OSError(2, value, str(value)) for value in FEW]
            raise described(ExceptionGroup(f"rows {FEW}", errors)) from None

    @chaos.call_failure(target="json:dumps", error="ConnectionError")
    def test_paths_and_files(mlchaos, tmp_path):
        def subject(folder):
            try:
                json.dumps(1)
            except ConnectionError:
                path = f"/srv/{'/'.join(map(str, FEW))}"
                raise FileNotFoundError(2, "No such file or directory", path) from None
            return FEW
        mlchaos.run(subject, tmp_path).assert_recovered()

    @chaos.corrupt_batch(kind="nan", at=0)
    def test_arrays(mlchaos):
        import numpy as np
        batches = [{str(value): np.array(NUMBERS) for value in FEW}]
        first = next(iter(mlchaos.batches(batches)))
        other = {str(value): np.array(NUMBERS) * 2 for value in FEW}
        told(assert_same_state, {"texts": np.array(list(map(str, FEW)))}, {"texts": np.array([])})
        assert_same_state(first, other)

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    def test_requests(mlchaos):
        def answer(request):
            try:
                return json.dumps(1)
            except ConnectionError:
                raise LookupError(f"no row for {request}") from None
        requests = [{"name": FEW}, FEW, *FEW]
        mlchaos.serve(answer).drive(requests).assert_slo(error_rate=0.0)
"""
HEAVY_CAUSES = """
    import pandas as pd
    import torch

    @chaos.nan_gradient(at=1)
    def test_tensors(mlchaos, tmp_path):
        def train(folder):
            weight = torch.nn.Parameter(torch.tensor(NUMBERS))
            optimizer = torch.optim.SGD([weight], lr=1e-3)
            for _ in range(3):
                optimizer.zero_grad()
                (weight * torch.tensor(NUMBERS)).sum().backward()
                optimizer.step()
            return {str(value): weight.detach() for value in FEW}
        mlchaos.run(train, tmp_path).assert_recovered()

    @chaos.missing_values(target="test_it:table", at=0, fraction=0.5)
    def test_data_frames(mlchaos):
        mlchaos.pipeline(table, FEW).assert_same_output()

    def table(values):
        texts = list(map(str, values))
        return pd.DataFrame({**{text: texts for text in texts}, "income": values}, index=texts)
"""
HOOKS = """
    from pytest_mlchaos.errors import MlchaosError

    def pytest_exception_interact(node, call, report):
        error = call.excinfo.value
        with open("told.txt", "a") as file:
            text = str(error) if isinstance(error, MlchaosError) else ""
            # A note of the user's own is the user's to show.
            notes = [note for note in getattr(error, "__notes__", []) if "rows were" not in note]
            print(type(error).__name__, text, *notes, file=file)
"""


def project(example, tests):
    """The project that pushes canaries through entry points."""
    source = (Path(__file__).parent / "canaries.py").read_text()
    tests = textwrap.dedent(COMMON + tests).replace("COUNT", str(COUNT)).replace("EACH", str(EACH))
    return (
        example.with_file("canaries.py", source)
        .with_file("conftest.py", HOOKS)
        .with_file("test_it.py", tests)
    )


def found_in(text: str, *, measured: bool = False) -> set[str]:
    """The canaries that a text holds, in any spelling.

    In what is ``measured``, a short number must stand by itself.
    """
    known = {spelling: str(canary) for canary in canaries(COUNT) for spelling in spellings(canary)}
    alone = set(re.findall(r"(?<![\w.])\d{1,9}(?!\w)", text)) if measured else set()
    return {
        canary
        for spelling, canary in known.items()
        if (
            spelling in alone if measured and SHORT_NUMBER.fullmatch(spelling) else spelling in text
        )
    }


CLAUSES = """
    title = "Ours"
    [[clause]]
    id = "1"
    tests = ["test_it.py::*", "missing.py::*"]
"""


def written(example, tests, monkeypatch, *, passed=16, exports=True) -> tuple[str, set[str]]:
    """All that the tool writes when these tests are run: messages, notes, every output, names of
    kept states. The files of a kept state are the user's own.

    The second value is the canaries in it, and in what has times.

    Args:
        example: The empty project.
        tests: Its tests.
        monkeypatch: The fixture.
        passed: At least so many tests must pass, so that the search is not over an empty session.
        exports: False to leave out what takes seconds: the libraries of other systems, and the
            fault coverage.
    """
    example = example.with_file("clauses.toml", CLAUSES).with_file(
        "pyproject.toml", '[tool.mlchaos.evidence]\nclauses = ["clauses.toml"]'
    )
    run = project(example, tests)
    folder = run.pytester.path
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    for number, canary in enumerate(canaries(len(KINDS))):
        monkeypatch.setenv(f"API_TOKEN_{number}", str(canary))
    has_report = all(map(importlib.util.find_spec, ("jinja2", "vl_convert")))
    outcome = run.run(
        "--mlchaos-journal=journal.jsonl",
        *(["--mlchaos-cov"] if exports else []),
        *(["--cov=.", "--cov-report="] if exports and HAS_COV else []),
        "--mlchaos-keep-state=kept",
        "--mlchaos-sarif=x.sarif",
        "--mlchaos-bundle=bundle",
        "--mlchaos-incidents=incidents",
        "--mlchaos-evidence=evidence",
        *(["--mlchaos-report=report.html"] if has_report else []),
        "--junitxml=junit.xml",
        "--tb=line",
        "-v",
    )
    assert outcome.outcomes.get("passed", 0) >= passed, outcome.text
    texts = list(read_again(folder, monkeypatch))
    texts += [path.read_text() for pattern in WRITTEN for path in folder.glob(pattern)]
    texts += re.findall("<propert.*?/>", (folder / "junit.xml").read_text())
    texts += [str(path.relative_to(folder)) for path in folder.glob("kept/**/*")]
    for name in ("bundle", "incidents", "evidence"):
        found = [str(path.relative_to(folder)) for path in folder.glob(f"{name}/**/*")]
        assert found
        texts += found
    texts += [line for line in outcome.text.splitlines() if line.startswith(("mlchaos", "::"))]
    if exports:
        texts.append(outcome.text.partition("mlchaos fault coverage")[2].partition("short test")[0])
        assert "fault coverage: " in texts[-1]
    failed = outcome.outcomes["failed"]
    annotations = sum(line.startswith("::error") for line in texts)
    assert annotations == min(failed, MAX_ANNOTATIONS)
    missing = [pattern for pattern in WRITTEN if not any(folder.glob(pattern))]
    assert not missing
    measured = [path.read_text() for pattern in MEASURED for path in folder.glob(pattern)]
    plan = run.run("--mlchaos-plan").text
    assert "mlchaos plan: no test and no fixture was run" in plan
    texts.append(plan)
    text = "\n".join(texts)
    if exports:
        measured.append(exported(folder))
    return text, found_in(text) | found_in("\n".join(measured), measured=True)


def read_again(folder, monkeypatch):
    """Yield what the commands print, and let them write what they make of the journal."""
    monkeypatch.chdir(folder)
    for command in (
        ("merge", "journal.jsonl", "-o", "merged.jsonl"),
        ("report", "merged.jsonl", "--incidents", "again", "--sarif", "again.sarif"),
        ("verify", "evidence"),
    ):
        with contextlib.redirect_stdout(io.StringIO()) as told:
            assert main(command) == 0
        yield told.getvalue()


def exported(folder) -> str:
    """All that the exports send, if their libraries are installed: as text, also of binary files."""
    (folder / "stores").mkdir()
    command = [
        sys.executable,
        "-m",
        "tests.export_all",
        folder / "journal.jsonl",
        folder / "stores",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode("utf-8", "replace")
    for modules, sign in (
        (("prometheus_client",), "mlchaos_strikes_total"),
        (("opentelemetry", "opentelemetry.sdk"), "mlchaos.fault.name"),
        (("mlflow", "sqlalchemy", "alembic"), "mlflow.parentRunId"),
        (("wandb",), "chaos-tests"),
    ):
        assert not export_all.has(*modules) or sign in text
    return text


@pytest.mark.slow
def test_no_canary_is_in_what_the_tool_writes(example, monkeypatch):
    """No canary appears in messages, notes, outputs, exports or the names of kept crash states.

    A canary is a value in memory, a file's content, an error's message or an environment variable.
    """
    text, found = written(example, PROJECT, monkeypatch)
    assert text.count("NotRecovered") >= 6
    assert text.count("RuntimeError") >= 6
    assert not found


def test_no_canary_comes_from_errors_arrays_paths_and_requests(example, monkeypatch):
    """Causes, notes, groups and attributes of errors, and the words of each output about them."""
    text, found = written(example, NUMBERS + CAUSES, monkeypatch, passed=0, exports=False)
    for name in (
        "RuntimeError",
        "ExceptionGroup",
        "FileNotFoundError",
        "StateDiffers",
        "SloMissed",
    ):
        assert text.count(name) >= 8, name
    assert not found


@pytest.mark.slow
def test_no_canary_comes_from_tensors_and_data_frames(example, monkeypatch):
    """Values, columns and labels that a fault has changed, in every export."""
    pytest.importorskip("torch")
    pytest.importorskip("pandas")
    text, found = written(example, NUMBERS + HEAVY_CAUSES, monkeypatch, passed=0)
    for name in ("NotRecovered", "PassedOn"):
        assert name in text
    assert not found


@pytest.mark.slow
def test_no_canary_comes_from_processes_tables_and_apps(example, monkeypatch):
    """The same of fresh processes, ranks, tables, texts and ASGI apps."""
    for module in ("torch", "pandas", "httpx", "cloudpickle"):
        pytest.importorskip(module)
    text, found = written(example, HEAVY, monkeypatch)
    for name in (
        "GoldenRunFailed",
        "RankFailed",
        "OutOfSync",
        "NonDeterministicSubject",
        "TrialTimeout",
        "NoFallback",
        "Drifted",
    ):
        assert name in text
    assert not found


@pytest.mark.slow
def test_canaries_are_found_where_values_are_shown(example):
    """With mlchaos_show_values the same project's reports hold canaries: the search above would
    have found them.
    """
    run = project(example, PROJECT).with_ini("mlchaos_show_values = true")
    chosen = "states or under_a_fault or predicate or that_fail"
    run.run("--tb=line", "--mlchaos-sarif=x.sarif", "-k", chosen)
    assert found_in((run.pytester.path / "x.sarif").read_text())
    assert len(found_in((run.pytester.path / "told.txt").read_text())) > COUNT // 2


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("optimizer", "'optimizer'"),
        ("bob@" + "example.org", "<str key 1 of 3>"),
        (2, "2"),
        (9_876_543, "<int key 1 of 3>"),
        (True, "True"),
    ],
)
def test_keys_are_shown_if_code_names_them(key, text):
    """A key is shown if it is a name in code or a position, and otherwise by its type and place."""
    assert privacy.key_text(key, 0, 3) == text


def test_a_key_that_was_read_is_hidden():
    """An identifier that no code names is data."""
    key = "".join(reversed("ecilaqz"))
    with pytest.raises(StateDiffers, match=re.escape("state[<str key 1 of 1>]: missing")):
        assert_same_state({}, {key: 1})


@pytest.mark.parametrize(("mine", "golden"), [(0.0, 1234.5), (1234.5, 0.0), (2469.0, 1234.5)])
def test_a_difference_that_tells_a_value_is_hidden(mine, golden):
    """A difference from 0, or to the double, is the value itself."""
    with pytest.raises(StateDiffers) as caught:
        assert_same_state(mine, golden)
    assert "1234" not in str(caught.value)


def test_losses_and_metrics_are_hidden():
    """Judgements on losses, metrics and columns name no value."""
    with pytest.raises(NotConverged) as loss:
        assert_converged([1234.5, 1233.5], below=1.0)
    with pytest.raises(Worse) as metric:
        assert_not_worse([0.0] * 6, [1234.5] * 6, margin=0.0)
    with pytest.raises(Drifted) as column:
        name = "".join(reversed("ecilaqz"))
        assert_no_drift({name: list(range(60))}, {name: [9e5 + n for n in range(60)]})
    texts = f"{loss.value} {metric.value} {column.value}"
    assert not re.search("123[34]|zqalice", texts), texts


def raised(function) -> str:
    """The text of what a function raises."""
    with pytest.raises(Exception) as caught:  # any
        function()
    return privacy.error_text(caught.value)


def test_messages_hold_constant_words_alone():
    """A message shows words that the code itself contains, and standard errors of the system in
    full.
    """
    secret = "".join(reversed("ecilaqz"))

    def fails():
        raise ValueError(f"no row for {secret} in the table")

    assert raised(fails) == "ValueError: no row for … in the table"
    assert raised(lambda: int(secret)) == "ValueError: invalid literal for int() with base …"
    assert (
        raised(lambda: open(f"/{secret}"))
        == "FileNotFoundError: [Errno 2] No such file or directory"
    )
    assert raised(lambda: {}[secret]) == "KeyError"
    assert (
        raised(lambda: None.shape) == "AttributeError: 'NoneType' object has no attribute 'shape'"
    )


@pytest.mark.slow
def test_show_values_is_for_one_session(example):
    """The option shows a session's values, says so in the header, and ends with the session."""
    project = example.with_tests("""
        import pytest_mlchaos

        def test_states(mlchaos):
            pytest_mlchaos.assert_same_state(0.0, 1234.5)
    """)
    project.run("--mlchaos-show-values", failed=1).has(
        "differs by 1230", "mlchaos: values are shown in reports"
    )
    assert not privacy.shows_values()
    assert "by 1230" not in project.run(failed=1).text


def test_bad_arguments_show_options_and_kinds():
    """Errors of arguments repeat short options, and describe what may be data."""
    assert privacy.option_text("150 ms") == "'150 ms'"
    assert privacy.option_text({"a": 1}) == "<dict of 1>"
    assert privacy.option_text(b"secret") == "<bytes of 6 bytes>"
    assert privacy.data_text("secret") == "str of 6 characters"
