"""``--mlchaos-budget`` gives the chaos tests of a session a limited time."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import textwrap

import pytest

from pytest_mlchaos.plugin.changed_code import Code, ExecutedFiles, executed_files

CACHE = ("-p", "cacheprovider")
"""Examples run without pytest's cache, unless they ask for it."""
CHAOS = '@chaos.call_failure(target="json:dumps", error=OSError("no"), at=0)'
PROJECT = f"""
    import json
    import pytest
    import ticking

    def work(seconds):
        ticking.now += seconds
        with pytest.raises(OSError):
            json.dumps(1)

    {CHAOS}
    def test_a(): work(3)

    def test_plain(): ticking.now += 100

    {CHAOS}
    def test_b(): work(3)

    {CHAOS}
    def test_c(): work(3)
"""


@pytest.fixture
def project(example, monkeypatch):
    """Return a project of three chaos tests of 3 s each, on a clock that only they move."""
    monkeypatch.setattr(
        "pytest_mlchaos.plugin.session_budget.perf_counter",
        lambda: getattr(sys.modules.get("ticking"), "now", 0.0),
    )
    return example.with_tests(PROJECT).with_file("ticking.py", "now = 0.0")


def order(outcome):
    """Return the names of the tests in the order of a run with ``-v``, and what became of each."""
    found = re.findall(r"::(\w+) (PASSED|LEFT|FAILED|SKIPPED)", outcome.text)
    return " ".join(
        name.removeprefix("test_") + ("*" if how == "LEFT" else "") for name, how in found
    )


def state_of(example):
    """Return what the cache knows of each test."""
    file = example.pytester.path / ".pytest_cache/v/mlchaos/last_runs"
    return json.loads(file.read_text())["tests"]


def remember(example, **tests):
    """Write what the cache knows of each test."""
    file = example.pytester.path / ".pytest_cache/v/mlchaos/last_runs"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = {f"test_it.py::test_{name}": entry for name, entry in tests.items()}
    file.write_text(json.dumps({"version": 1, "tests": known}))


def test_tests_after_the_budget_are_left_and_named(project):
    """They count as left, not as passed or skipped, and the session still succeeds."""
    outcome = project.run(*CACHE, "-v", "--mlchaos-budget=5s", passed=3, left=1, skipped=0)
    assert order(outcome) == "a plain b c*"
    assert outcome.exit_code == 0
    outcome.has(
        "--mlchaos-budget=5 s is used up: 1 of 3 chaos tests LEFT, without a verdict",
        "  test_it.py::test_c",
    )


def test_what_was_left_comes_first_next_time(project):
    """Other tests keep their places, and always run."""
    project.run(*CACHE, "--mlchaos-budget=1s", passed=2, left=2)
    outcome = project.run(*CACHE, "-v", "--mlchaos-budget=4s", passed=3, left=1)
    assert order(outcome) == "b plain c a*"


def test_a_budget_that_is_not_used_up_leaves_nothing(project):
    """The summary says so, and the tests stay in their order."""
    outcome = project.run(*CACHE, "-v", "--mlchaos-budget=1m", passed=4)
    assert order(outcome) == "a plain b c"
    outcome.has("mlchaos: 3 chaos tests ran to the end within --mlchaos-budget=60 s")


def test_tests_that_failed_and_short_tests_come_first(project):
    """Among tests whose code has changed."""
    remember(project, a={"seconds": 4}, b={"seconds": 2}, c={"seconds": 15, "failed": True})
    assert order(project.run(*CACHE, "-v", "--mlchaos-budget=1m")) == "c plain b a"


def test_tests_whose_code_has_changed_come_first(project):
    """A change of a module that a test file imports is one of the test."""
    second = project.with_file("module.py", "X = 1").with_file(
        "test_other.py",
        f"from pytest_mlchaos import chaos\nimport module\n{textwrap.dedent(PROJECT)}",
    )
    second.run(*CACHE, "--mlchaos-budget=1h", passed=8)
    assert all(entry["digest"] for entry in state_of(project).values())
    known = state_of(project)
    file = project.pytester.path / ".pytest_cache/v/mlchaos/last_runs"
    for entry in known.values():
        entry["seconds"] = 1
    file.write_text(json.dumps({"version": 1, "tests": known}))
    changed = second.with_file("module.py", "X = 2")
    outcome = changed.run(*CACHE, "-v", "--mlchaos-budget=1h", passed=8)
    names = re.findall(r"(\w+)\.py::test_[abc] PASSED", outcome.text)
    assert names == ["test_other"] * 3 + ["test_it"] * 3


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 0}', '{"version": 1, "tests": {"x": 3}}']
)
def test_a_damaged_state_is_an_empty_one(project, content):
    """It never breaks a run, and the run repairs it."""
    remember(project)
    (project.pytester.path / ".pytest_cache/v/mlchaos/last_runs").write_text(content)
    project.run(*CACHE, "--mlchaos-budget=1m", passed=4)
    assert len(state_of(project)) == 3


def test_strange_entries_of_the_state_count_as_unknown(project):
    """A value of a different type is as good as none."""
    remember(project, a={"seconds": "x", "files": [1]}, b={"digest": 3}, c={"left": True})
    outcome = project.run(*CACHE, "-v", "--mlchaos-budget=1m", passed=4)
    assert order(outcome) == "c plain a b"


def test_require_all_fails_a_session_that_left_tests(project):
    """The line says which setting asks for it."""
    outcome = project.run("--mlchaos-budget=5s", "--mlchaos-require-all", passed=3, left=1)
    assert outcome.exit_code == 1
    outcome.has("FAIL mlchaos: not all chaos tests ran to their end (require_all)")


def test_without_a_cache_the_summary_says_what_is_lost(project):
    """The next run cannot begin with what was left."""
    project.run("--mlchaos-budget=1s", left=2).has("because pytest's cache is switched off")


def test_a_test_that_failed_and_was_left_stays_a_last_failure(project):
    """``--lf`` of the next run would not run it otherwise."""
    failing = project.with_file("ticking.py", "now = 0.0\nraises = True").with_tests(
        PROJECT.replace("def test_c(): work(3)", "def test_c(): work(3); assert not ticking.raises")
    )
    failing.run(*CACHE, "--mlchaos-budget=1m", failed=1, passed=3)
    remember(project, a={"left": True}, b={"left": True})
    failing.run(*CACHE, "--mlchaos-budget=5s", passed=3, left=1)
    outcome = failing.run(*CACHE, "--lf", "-v", "--mlchaos-budget=5s", failed=1, passed=0)
    assert order(outcome) == "c"


def test_junit_reports_a_left_test_as_skipped(project):
    """The format has no better word. The message says why."""
    project.run("--mlchaos-budget=5s", "--junitxml=junit.xml")
    text = (project.pytester.path / "junit.xml").read_text()
    assert 'skipped="1"' in text
    assert "left, not run: the chaos tests before it used up" in text


def test_the_ini_option_limits_each_test(project):
    """Only the command line has a budget for the session."""
    project.with_ini("mlchaos_budget = 1s").run(passed=4, left=0)


def test_the_budget_ends_a_search(project):
    """The search passes by what it tried, and the summary names it."""
    outcome = project.with_tests("""
        import json

        @chaos.call_failure(target="json:dumps", error=OSError("no"))
        @chaos.settings(max_trials=1_000, max_faults=3)
        def test_it():
            for _ in range(30):
                try:
                    json.dumps(sum(range(30_000)))
                except OSError:
                    pass
    """).run("--mlchaos-budget=1", passed=1)
    outcome.has("ended 1 of 1 chaos test early", "  test_it.py::test_it")


def test_a_budget_of_the_test_still_limits_it(project):
    """The shorter one of both ends the search, and the session is not to blame."""
    outcome = project.with_tests("""
        import json

        @chaos.call_failure(target="json:dumps", error=OSError("no"))
        @chaos.settings(budget=1, max_trials=1_000, max_faults=3)
        def test_it():
            for _ in range(30):
                try:
                    json.dumps(sum(range(30_000)))
                except OSError:
                    pass
    """).run("--mlchaos-budget=1h", passed=1)
    outcome.has("not tried in test_it.py::test_it", "ran to the end within")


EXPLORATION = """
    import itertools, json, pytest

    @pytest.fixture(autouse=True)
    def ticks(monkeypatch):
        monkeypatch.setattr("pytest_mlchaos.crashes.tested.perf_counter", itertools.count().__next__)

    def totals(workdir):
        file = workdir / "totals.json"
        day = json.loads(file.read_text()) if file.exists() else 0
        while day < 5:
            day += 1
            file.with_suffix(".tmp").write_text(json.dumps(day))
            file.with_suffix(".tmp").replace(file)
        return day
"""


def test_an_exploration_without_a_verdict_is_left(project):
    """It was begun and shows nothing, so it neither passes nor fails. The session fails, because
    no chaos test of it has a verdict.
    """
    outcome = project.with_tests(f"""{EXPLORATION}
    @pytest.mark.filterwarnings("ignore:mlchaos")
    def test_it(mlchaos, tmp_path):
        mlchaos.explore_crashes(totals, tmp_path, isolation="in-process").assert_recovers()
    """).run(*CACHE, "-rs", "--mlchaos-budget=1s", left=1, failed=0, passed=0)
    outcome.has("FAIL mlchaos: --mlchaos-budget is too short for a verdict of any chaos test")
    assert outcome.exit_code == 1
    assert state_of(project)["test_it.py::test_it"]["left"] is False  # others come before it


def test_a_failure_before_the_end_of_the_budget_is_a_failure(project):
    """It does not depend on the states that were not tried."""
    project.with_tests(f"""{EXPLORATION}
    def forgets(workdir):
        file = workdir / "totals.json"
        assert not file.exists(), "already there"
        for day in range(5):
            file.write_text(json.dumps(day))

    @pytest.mark.filterwarnings("ignore:mlchaos")
    def test_it(mlchaos, tmp_path):
        mlchaos.explore_crashes(forgets, tmp_path, isolation="in-process").assert_recovers()
    """).run("--mlchaos-budget=6s", failed=1, left=0)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("xdist"), reason="needs pytest-xdist")
def test_workers_of_xdist_leave_tests(example):
    """Each has the whole time, and the main process keeps what is known."""
    project = example.with_tests(f"""
        import json, time
        import pytest

        {CHAOS}
        @pytest.mark.parametrize("number", range(8))
        def test_it(number):
            time.sleep(0.2)
            with pytest.raises(OSError):
                json.dumps(1)
    """)
    workers = (*CACHE, "-n", "2", "--mlchaos-budget=0.1s")
    project.run(*workers, interpreter=True, passed=2, left=6)
    first = {name for name, entry in state_of(project).items() if not entry["left"]}
    again = project.run(*workers, interpreter=True, passed=2, left=6)
    second = {name for name, entry in state_of(project).items() if not entry["left"]}
    assert len(second) == 2
    assert not second & first
    assert again.exit_code == 0


# -- changed code ----------------------------------------------------------------------------------


def test_a_digest_follows_the_modules_that_a_test_imports(tmp_path):
    """Also through other modules, but not a file that none of them imports."""
    (tmp_path / "test_it.py").write_text("import model")
    (tmp_path / "model.py").write_text("from parts import layer")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").touch()
    (tmp_path / "parts/layer.py").write_text("X = 1")
    (tmp_path / "notes.py").write_text("X = 1")
    nodeid = "test_it.py::test_one"
    code = Code(tmp_path)
    known = {"digest": code.digest(code.files_of("test_it.py"))}
    (tmp_path / "notes.py").write_text("X = 2")
    assert not Code(tmp_path).has_changed(nodeid, known)
    (tmp_path / "parts/layer.py").write_text("X = 2")
    assert Code(tmp_path).has_changed(nodeid, known)


@pytest.mark.parametrize("known", [{}, {"digest": None}, {"digest": "x", "files": []}])
def test_unknown_code_counts_as_changed(tmp_path, known):
    """Nothing is guessed."""
    (tmp_path / "test_it.py").write_text("")
    assert Code(tmp_path).has_changed("test_it.py::test_one", known)


def test_files_that_only_other_tests_executed_are_left_out():
    """A file that no test executed stays, because it may hold constants."""
    executed = ExecutedFiles({"a": {"model.py"}, "b": {"data.py", "plugin.py"}})
    imported = ["config.py", "data.py", "model.py", "test_it.py"]
    assert executed.narrow("a", imported) == ["config.py", "model.py", "test_it.py"]
    assert executed.narrow("b", imported) == ["config.py", "data.py", "plugin.py", "test_it.py"]
    assert executed.narrow("c", imported) is None


class _Data:
    """The data of coverage.py, with these contexts by file."""

    def __init__(self, contexts):
        self._contexts = contexts
        self.measured_files = contexts.keys().__iter__

    def contexts_by_lineno(self, file):
        return {1: self._contexts[file]}


def test_contexts_of_coverage_name_the_tests(tmp_path, monkeypatch):
    """Also after a static context, and if the test's id has the separator."""
    test, other = "test_it.py::test_a[x|y]", "test_it.py::test_a"
    data = _Data(
        {
            str(tmp_path / "a.py"): ["", f"{test}|run"],
            str(tmp_path / "b.py"): [f"nightly|{other}|run|trial 2: crash(at=3)"],
            str(tmp_path / "c.py"): ["test_it.py::test_gone|run"],
        }
    )
    monkeypatch.setattr("pytest_mlchaos.plugin.changed_code._measured", lambda since: data)
    executed = executed_files(tmp_path, 0.0, [test, other])
    assert executed.narrow(test, []) == ["a.py"]
    assert executed.narrow(other, []) == ["b.py"]
