"""Prometheus rules on the replies of a load."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import textwrap

import pytest

from pytest_mlchaos import Load
from pytest_mlchaos.core.replies import Reply
from pytest_mlchaos.errors import (
    BadArgument,
    FalseAlarm,
    Inconclusive,
    MissingProgram,
    MlchaosError,
    Unnoticed,
)
from pytest_mlchaos.serving.golden_load import GoldenLoad

RULES = """
groups:
  - name: api
    rules:
      - alert: Errors
        expr: sum(rate(http_requests_total{code=~"5.."}[1m])) > 0.1
      - alert: Always
        expr: vector(1)
      - alert: Never
        expr: sum(rate(http_requests_total{code="999"}[1m])) > 1
"""
FAKE = """
import json, sys

if sys.argv[1] == "check":
    text = open(sys.argv[3]).read()
    if "sum(((" in text:
        print("unclosed left parenthesis", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
test = json.load(open(sys.argv[3]))["tests"][0]
errors = next(s["values"].split() for s in test["input_series"]
              if s["series"].startswith("http_requests_total") and '"500"' in s["series"])
failed = False
for place, one in enumerate(test["alert_rule_test"]):
    name, grows = one["alertname"], place and float(errors[place]) > float(errors[place - 1])
    if name == "Broken" or name == "Always" or (name == "Errors" and grows):
        failed = True
        if name != "Broken":
            print(f"    alertname: {name}, time: {int(one['eval_time'][:-2]) // 1000}s, ")
sys.exit(failed)
"""


@pytest.fixture(params=["fake", "promtool"])
def rules(request, tmp_path, monkeypatch):
    """A rule file, and a program that evaluates it: the real one where there is one."""
    if request.param == "fake":
        program = tmp_path / "promtool"
        program.write_text(f"#!{sys.executable}\n{textwrap.dedent(FAKE)}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    elif shutil.which("promtool") is None:
        pytest.skip("promtool is not on the PATH")
    path = tmp_path / "rules.yml"
    path.write_text(RULES)
    return path


def replies(bad=()):
    """One reply each second. Those at these seconds are errors of a fault."""
    return [
        Reply(
            number=n,
            name=f"request {n}",
            request=n,
            status=500 if n in bad else 200,
            ok=n not in bad,
            latency=0.1,
            start=float(n),
            fault_ended=float(n) if n in bad else None,
        )
        for n in range(300)
    ]


def load(bad=(), golden_bad=()):
    """A load with its golden load."""
    return Load(replies(bad), lambda time: GoldenLoad(replies(golden_bad), {}))


def test_an_alert_that_fires_in_time_passes(rules):
    """The errors last from second 100 on."""
    load(range(100, 200)).assert_alert("Errors", rules=rules, within="60s")


def test_an_alert_that_is_quiet_passes(rules):
    """It fires in the positive control."""
    load().assert_no_alert("Errors", rules=rules)


@pytest.mark.parametrize(
    ("judge", "error", "text"),
    [
        (lambda r: load([100]).assert_alert("Never", rules=r), Unnoticed, "Never did not fire"),
        (
            lambda r: load(range(100, 200)).assert_alert("Errors", rules=r, within="1s"),
            Unnoticed,
            "fired too late",
        ),
        (lambda r: load([100]).assert_alert("Always", rules=r), FalseAlarm, "in the golden load"),
        (
            lambda r: load([100], range(300)).assert_alert("Errors", rules=r),
            FalseAlarm,
            "in the golden load",
        ),
        (lambda r: load(range(300)).assert_no_alert("Errors", rules=r), FalseAlarm, "fired"),
        (lambda r: load().assert_no_alert("Never", rules=r), Inconclusive, "positive control"),
        (lambda r: load([1]).assert_alert("Eror", rules=r), BadArgument, "must be in rules.yml"),
        (
            lambda r: load([1]).assert_alert("Errors", rules=r.with_name("no.yml")),
            BadArgument,
            "must be a rule file",
        ),
        (
            lambda r: load([1]).assert_alert("Errors", rules=r, interval="1ms"),
            BadArgument,
            "longer interval",
        ),
        (
            lambda r: load([1]).assert_alert("Errors", rules=r, requests="no name"),
            BadArgument,
            "a metric must have a name",
        ),
    ],
)
def test_what_is_wrong_with_an_alert_is_named(rules, judge, error, text):
    """Each mistake gets its own error, and never a pass."""
    with pytest.raises(error, match=text):
        judge(rules)


def test_a_rule_file_with_an_error_shows_what_promtool_says(rules):
    """The user sees the place."""
    rules.write_text("groups: [{name: x, rules: [{alert: Errors, expr: 'sum((('}]}]")
    with pytest.raises(BadArgument, match="unclosed left parenthesis"):
        load([1]).assert_alert("Errors", rules=rules)


def test_an_unknown_failure_of_promtool_is_an_error_of_the_tool(rules):
    """It says nothing about the alert."""
    if shutil.which("promtool") != str(rules.with_name("promtool")):
        pytest.skip("only a fake program fails like this")
    rules.write_text(RULES.replace("Never", "Broken"))
    with pytest.raises(MlchaosError, match="in a way that is not known"):
        load([1]).assert_alert("Broken", rules=rules)


def test_without_promtool_the_message_says_where_to_get_it(tmp_path, monkeypatch):
    """A test that needs it is not passed over in silence."""
    path = tmp_path / "rules.yml"
    path.write_text(RULES)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram, match=r"prometheus\.io/download"):
        load([1]).assert_alert("Errors", rules=path)
