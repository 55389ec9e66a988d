"""Which measurements of coverage.py can be asked for the lines of a trial."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from pytest_mlchaos.plugin import coverage_py
from pytest_mlchaos.plugin.coverage_py import Contexts, find_contexts


class Data:
    """The data of a measurement: lines by context and file."""

    def __init__(self, lines):
        self._lines = lines
        self.asked = []

    def set_query_context(self, name):
        self.asked.append(name)

    def set_query_contexts(self, names):
        self.asked.append(names)

    def measured_files(self):
        return {file for files in self._lines.values() for file in files}

    def lines(self, file):
        return self._lines.get(self.asked[-1], {}).get(file)


class Measurement:
    """A running measurement with these facts and options."""

    def __init__(self, facts, options=(), lines=()):
        self._facts, self._options = facts, dict(options)
        self.data = Data(dict(lines))
        self.context = self._options.get("run:context")

    def sys_info(self):
        return self._facts

    def get_option(self, name):
        return self._options.get(name)

    def get_data(self):
        return self.data

    def switch_context(self, name):
        before, static = self.context, self._options.get("run:context")
        self.context = "|".join(part for part in (static, name) if part)
        return before


def running(monkeypatch, measurement):
    """Let a measurement be the current one."""
    current = types.SimpleNamespace(current=lambda: measurement)
    monkeypatch.setitem(sys.modules, "coverage", types.SimpleNamespace(Coverage=current))


@pytest.mark.parametrize(
    ("facts", "options", "reason"),
    [
        ([("core", "SysMonitor")], {}, coverage_py.NO_CONTEXTS),
        ([("tracer", "SysMonitor")], {}, coverage_py.NO_CONTEXTS),
        ([("core", "CTracer")], {"run:dynamic_context": "test_function"}, coverage_py.TAKEN),
        (
            [("core", "CTracer"), ("plugins.context_switchers", ["theirs"])],
            {},
            coverage_py.TAKEN,
        ),
    ],
)
def test_measurements_without_contexts_give_a_reason(monkeypatch, facts, options, reason):
    """Each in one sentence, with the cure."""
    running(monkeypatch, Measurement(facts, options))
    assert find_contexts() == (None, reason)


@pytest.mark.parametrize("module", [None, Measurement([])])
def test_no_measurement_gives_a_reason(monkeypatch, module):
    """Both if coverage.py is not imported, and if it does not run."""
    if module is None:
        monkeypatch.delitem(sys.modules, "coverage", raising=False)
    else:
        running(monkeypatch, None)
    assert find_contexts() == (None, coverage_py.NOT_RUNNING)


@pytest.mark.parametrize("static", ["", "linux"])
def test_contexts_are_read_and_restored(monkeypatch, static):
    """Also with a static context, which coverage.py puts before each name."""
    name = f"{static}|trial" if static else "trial"
    lines = {name: {"a.py": [1, 2], "b.py": [3], "c.py": []}, "other": {"a.py": [9]}}
    measurement = Measurement(
        [("core", "CTracer"), ("plugins.context_switchers", ["-none-"])],
        {"run:context": static or None},
        lines,
    )
    running(monkeypatch, measurement)
    measurement.switch_context("theirs")
    contexts, reason = find_contexts()
    assert isinstance(contexts, Contexts)
    assert reason == ""
    before = contexts.switch("trial")
    assert (before, measurement.context) == ("theirs", name)
    contexts.switch(before)
    assert measurement.context == (f"{static}|theirs" if static else "theirs")
    assert contexts.lines("trial", lambda file: file != "b.py") == {"a.py": {1, 2}}
    assert measurement.data.asked == [name, None]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pytest_cov") is None, reason="needs pytest-cov")
def test_a_failing_measurement_does_not_fail_the_test(example):
    """The summary says that recovery code was not followed."""
    outcome = example.with_tests(
        """
        import pytest

        @pytest.fixture
        def broken(monkeypatch):
            import coverage
            def fail(self, name):
                raise RuntimeError("it broke")
            monkeypatch.setattr(coverage.Coverage, "switch_context", fail)

        def send():
            return 1

        @chaos.call_failure(target="test_it:send", error=OSError(5, "no"), at=0)
        def test_it(broken):
            with pytest.raises(OSError):
                send()
        """
    ).run("--mlchaos-cov", "--cov=.", "--cov-report=", interpreter=True, passed=1)
    outcome.has("coverage.py raised RuntimeError, so recovery code was not followed")
