"""The HTML report: what it shows, what it never shows, and that it is always the same."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import importlib.util
import random
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from pytest_mlchaos.core import coverage_entries, entries
from pytest_mlchaos.core.entries import Line
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.reports import html
from pytest_mlchaos.reports.journal_reader import read_journals, session_of

from . import synthetic_journal
from .synthetic_journal import end

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")

from pytest_mlchaos.reports.html import figures, overview, page, test_view
from pytest_mlchaos.reports.html.limits import latency_bounds
from pytest_mlchaos.reports.html.vega_charts import latency_chart, loss_chart

INJECTION = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;{{ 7*7 }}"


@pytest.fixture(scope="module")
def whole():
    """A page of every kind of test."""
    return page.render(synthetic_journal.session())


class Reader(HTMLParser):
    """Collect the tags, the texts and the attributes of a page. Unclosed tags are noted."""

    VOID = frozenset(
        {"meta", "link", "input", "br", "img", "rect", "use", "path", "circle", "line"}
    )

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.ids, self.open, self.wrong = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def rendered(*lines):
    """The page of these lines."""
    return page.render(session_of(lines))


def section(text, name):
    """The part of the page about one test."""
    return next(
        part
        for part in re.findall(r"<article.*?</article>", text, re.DOTALL)
        if f"<h3>{name}</h3>" in part
    )


def test_write_makes_one_well_formed_file(tmp_path, whole):
    """Each tag is closed, each id is unique, each link of the page has its target."""
    target = tmp_path / "deep" / "report.html"
    html.write(synthetic_journal.session(), str(target))
    text = target.read_text()
    assert text == whole
    found = Reader(text)
    assert not found.wrong
    assert not found.open
    assert len(set(found.ids)) == len(found.ids)
    links = {attrs["href"] for _, attrs in found.tags if attrs.get("href", "").startswith("#")}
    assert len(links) > 5
    assert {link[1:] for link in links} <= set(found.ids)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_page_refers_to_nothing_outside(whole):
    """No attribute or style loads anything, and the policy of the page forbids it as well."""
    for tag, attrs in Reader(whole).tags:
        for name in ("src", "href", "action", "xlink:href"):
            assert attrs.get(name, "#").startswith(("#", "data:,")), (tag, attrs)
    assert not re.search(r"@import|url\(", whole)
    assert "default-src 'none'" in whole
    assert "connect-src 'none'" in whole


def test_headline_and_totals_count_the_session():
    """The first words are the result."""
    found = overview.page_of(synthetic_journal.session())
    assert found.headline == "7 of 23 chaos tests fail"
    assert found.counts == {
        "failed": 6,
        "inconclusive": 1,
        "interrupted": 1,
        "running": 1,
        "passed": 13,
        "skipped": 1,
    }
    assert ("600", "trials") in found.totals
    assert ("311", "crash states, 64 bad") in found.totals


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("test_any_moment", "Recovers from all 133 crash states. Loses at most 3 steps."),
        (
            "test_resumes_from_any_crash",
            "61 of 81 crash states do not recover. Loses at most 3 steps.",
        ),
        ("test_nightly_load", "Ended after 97 of 260 crash states, 3 bad."),
        ("test_study_resumes", "12 of 50 schedules tried, 0 bad."),
        ("test_slo_under_a_slow_feature_store", "SloMissed: the SLO is missed over 400 requests."),
        ("test_oom_is_survived", "Passes with 2 strikes."),
        ("test_lost_gpu", "Skipped."),
    ],
)
def test_each_test_has_one_sentence(whole, name, told):
    """The row of a test says what came out."""
    assert f'<span class="said">{told}</span>' in section(whole, name)


def test_failing_test_shows_cause_and_reproduction(whole):
    """The text of the failure, the first divergence, and lines to copy."""
    text = section(whole, "test_loss_after_preemption")
    assert "(momentum is not in the checkpoint)" in text
    assert "<code>@chaos.preempt(at=59)</code>" in text
    assert (
        "<code>pytest tests/test_trainer.py::test_loss_after_preemption --mlchaos-replay "
        "&#34;preempt(at=59)&#34;</code>"
    ) in text
    assert text.count('class="copy"') == 2


def test_first_divergence_of_crash_states_is_named(whole):
    """The earliest step of all states, with its component."""
    text = section(whole, "test_resumes_from_any_crash")
    assert "<b>First divergence</b> step 4: data order" in text


def test_killed_session_shows_its_test_as_running(tmp_path):
    """A test without an end, and half a line, are reported as such."""
    journal = tmp_path / "journal.jsonl"
    line = Line("test_a.py::test_it", 1, entries.Trial(outcome="passed", schedule="crash(at=1)"))
    journal.write_text(line.text() + "\n" + line.text()[:40])
    session = read_journals([journal])
    text = page.render(session)
    assert "1 of 1 chaos test did not end" in text
    assert "Running, or its session was killed" in text
    assert "journal.jsonl: line 2 is incomplete, as a killed session leaves it" in text
    assert str(tmp_path) not in text


def test_session_without_tests_is_a_page():
    """An empty journal says so."""
    assert "No chaos test has run" in rendered()


def test_crash_states_are_laid_out_over_saves():
    """A lane for each file, a mark for each bad state, and a table with the same numbers."""
    whole = entries.Exploration(
        number=0,
        states=5,
        tried=5,
        bad=3,
        steps=10,
        saves=((2, "a.ckpt"), (8, "a.ckpt"), (10, "b.ckpt")),
    )
    states = [
        entries.State(exploration=0, state="1", verdict="recovered", path="a.ckpt", step=2),
        entries.State(
            exploration=0, state="2", verdict="failed", path="a.ckpt", step=5, what="cut"
        ),
        entries.State(exploration=0, state="3", verdict="hung", path="a.ckpt", step=5),
        entries.State(exploration=0, state="4", verdict="diverged", path="b.ckpt", step=10),
        entries.State(exploration=0, state="5", verdict="recovered", path="b.ckpt", step=10),
    ]
    figure = figures.crash_figure(whole, states)
    assert [lane.label for lane in figure.lanes] == ["a.ckpt", "b.ckpt"]
    first = figure.lanes[0]
    assert first.note == "2 saves, 3 states, 2 bad"
    assert first.ticks == "M182 0v1M727 0v1"
    assert first.quiet == "M182 0v1"
    assert [(mark.x, mark.kind, mark.title) for mark in first.marks] == [
        (45.6, "failed", "failed: cut"),
        (50.0, "hung", "hung: 3"),
    ]
    assert figure.head == ("File", "Saves", "States", "Diverged", "Failed", "Hung", "Recovered")
    assert list(figure.rows) == [
        ("a.ckpt", "2", "3", "0", "1", "1", "1"),
        ("b.ckpt", "1", "2", "1", "0", "0", "1"),
    ]


def test_timeline_places_strikes_among_visits():
    """Struck sites come first, and a strike is in the middle of its visit."""
    trial = entries.Trial(
        outcome="passed", visits={"data.batch": 3, "train.step": 10, "call m:f": 4}
    )
    strikes = [
        entries.StrikeEntry(fault="preempt", site="train.step", visit=4),
        entries.StrikeEntry(fault="call_failure(target='m:f')", site="call", visit=0),
    ]
    result = entries.ResultEntry(
        number=0, method="mlchaos.run", attempts=("ended by preempt", "finished"), steps=(5, 15)
    )
    figure = figures.timeline(trial, [result], strikes)
    assert [lane.label for lane in figure.lanes] == [
        "mlchaos.run",
        "call m:f",
        "train.step",
        "data.batch",
    ]
    assert [(bar.x, bar.width, bar.kind, bar.text) for bar in figure.lanes[0].segments] == [
        (0.0, 25.0, "ended", "1: ended by preempt"),
        (25.0, 75.0, "attempt", "2: finished"),
    ]
    assert [mark.x for mark in figure.lanes[2].marks] == [45.0]
    assert [mark.x for mark in figure.lanes[1].marks] == [12.5]


def test_ranks_are_lanes():
    """The length of a lane is its steps."""
    ranks = [
        entries.Rank(result=0, rank=0, outcome="halted", steps=5, ended="killed"),
        entries.Rank(result=0, rank=1, outcome="finished", steps=20),
    ]
    strike = entries.StrikeEntry(
        fault="rank_failure", site="train.step", visit=5, details={"rank": 0}
    )
    figure = figures.rank_figure(ranks, [strike])
    assert [lane.segments[0].width for lane in figure.lanes] == [25.0, 100.0]
    assert [[mark.x for mark in lane.marks] for lane in figure.lanes] == [[27.5], []]


def test_search_map_names_failing_visits():
    """Visits in failing trials are marked, and the others are only covered."""
    strikes = [
        (entries.StrikeEntry(fault="f", site="train.step", visit=visit), visit == 2)
        for visit in (0, 1, 2, 5)
    ]
    figure = figures.visit_map(strikes, {"train.step": 8})
    assert figure.lanes[0].note == "4 of 8 visits, 1 failing"
    assert figure.lanes[0].runs == "M0 .5h2M5 .5h1"
    assert [mark.title for mark in figure.lanes[0].marks] == ["visit 2"]


def test_fault_coverage_has_a_section():
    """The states of fault points, recovery code, checks and missed points, if they are known."""
    test = "t.py::t"
    text = rendered(
        Line(
            test,
            1,
            entries.StrikeEntry(
                fault="call_failure(at=0)",
                site="call",
                visit=0,
                point="call c:get",
                function="f.py:load",
            ),
        ),
        Line(test, 1, coverage_entries.Touch(point="call c:get", function="f.py:load")),
        Line(test, 1, coverage_entries.Touch(point="call c:put", function="f.py:save")),
        Line(
            test, 1, entries.Judgement(oracle="Run.assert_recovered", verdict="failed", error="E")
        ),
        Line(test, 1, entries.Trial(outcome="failed", visits={"train.step": 3}, error="E")),
        Line(
            test,
            0,
            coverage_entries.Recovery(file="f.py", line=7, what="except OSError", function="load"),
        ),
        Line(test, 0, coverage_entries.Recovery(file="f.py", line=9, what="finally", reached=True)),
        Line(test, 0, entries.Point(name="fallback", place="f.py:3")),
        Line(test, 0, coverage_entries.Scope(declared=(("call_failure", "call c:get"),))),
        end(test, "failed"),
    )
    words = re.sub(r"\s+", " ", " ".join(Reader(text.partition('id="coverage"')[2]).texts))
    assert "1 of 3 places at which a fault can strike were struck" in words
    assert "33 %" in words
    assert "struck and judged call c:get" in words
    assert "visited, and never struck train.step 3" in words
    assert "f.py:save call c:put" in words
    assert "f.py:7 except OSError in load" in words
    assert "f.py:9" not in words
    assert "call_failure Run.assert_recovered 1 of 1" in words
    assert "no trial reached 'fallback' (f.py:3)" in words


def test_strip_shows_the_worst_of_each_cell():
    """One bad state among many is never averaged away."""
    strip = figures.strip_of(["passed"] * 5000 + ["failed"] + ["passed"] * 4999)
    assert strip.cells == figures.MOST_CELLS
    assert strip.paths["failed"] == "M50 5h1"
    assert figures.strip_of(["passed"]) is None


def test_slow_requests_are_not_green():
    """A request above the bound of the SLO differs from one that is answered in time."""
    requests = entries.Requests(
        result=0, starts=(0.0, 0.1, 0.2), latencies=(0.01, 0.2, 0.3), failed=(2,)
    )
    assert figures.request_kinds(requests, 0.15) == ["passed", "slow", "failed"]
    assert "s-slow" in page.render(
        session_of(synthetic_journal.serving("t.py::t", random.Random(1), slow=True))
    )


def test_loss_chart_holds_both_curves():
    """A value that is not finite leaves a gap, and a restart is a line."""
    golden = entries.Curve(result=0, golden=True, values=(2.0, 1.0, 0.5, 0.2))
    run = entries.Curve(result=0, values=(2.0, None, 0.5, 0.3, 0.2), attempts=(2, 3))
    drawn = loss_chart(golden, run)
    assert drawn.startswith('<svg class="chart"')
    assert 'stroke="var(--golden)"' in drawn
    assert re.search(r'd="M[^"]*M[^"]*"[^>]*stroke="var\(--run\)"', drawn)
    assert 'stroke="var(--strike)"' in drawn
    assert loss_chart(None, None) == ""


def test_latency_chart_has_the_bounds_of_the_slo():
    """Only bounds on latencies are lines."""
    requests = entries.Requests(
        result=0,
        starts=(0.0, 0.1, 0.2),
        latencies=(0.01, 0.02, 0.4),
        struck=(1,),
        failed=(2,),
    )
    limits = {"p99": "150ms", "max": 0.5, "error_rate": 0.01, "p50": "nonsense"}
    assert latency_bounds(limits) == {"p99": 0.15, "max": 0.5}
    drawn = latency_chart(requests, limits)
    assert ">p99</text>" in drawn
    assert "error_rate" not in drawn
    assert 'stroke="var(--failed)"' in drawn
    assert 'stroke="var(--strike)"' in drawn


def test_matrix_is_green_only_if_every_struck_trial_was_judged():
    """A strike without a judgement is never shown as judged."""

    def trial(number, fault, judged, outcome="passed"):
        lines = [
            Line(
                "t.py::t",
                number,
                entries.StrikeEntry(fault=f"{fault}(at=0)", site="train.step", visit=0),
            ),
            Line(
                "t.py::t",
                number,
                entries.Trial(outcome=outcome, visits={"train.step": 1, "data.batch": 2}),
            ),
        ]
        judgement = entries.Judgement(oracle="Run.assert_recovered", verdict="passed")
        return [*lines, Line("t.py::t", number, judgement)] if judged else lines

    session = session_of(
        [
            *trial(1, "judged", True),
            *trial(2, "half", True),
            *trial(3, "half", False),
            *trial(4, "broken", True, "failed"),
            end("t.py::t", "failed", faults=("judged", "quiet(at=3)")),
        ]
    )
    matrix = overview.page_of(session).matrix
    assert matrix.sites == ["train.step"]
    assert {fault: cells[0].kind for fault, cells in matrix.rows} == {
        "judged": "judged",
        "half": "unjudged",
        "broken": "failed",
    }
    assert matrix.quiet == ["quiet"]
    assert matrix.visited == ["data.batch"]
    assert "declared, never struck" in page.render(session)


def strings(value):
    """Replace each text inside a field by the injection."""
    if isinstance(value, str):
        return value + INJECTION
    if isinstance(value, tuple):
        return tuple(strings(one) for one in value)
    if isinstance(value, dict):
        return {strings(name): strings(one) for name, one in value.items()}
    return value


KEPT = ("outcome", "verdict")


def test_markup_in_any_field_is_escaped():
    """A test id, a path, an error and each other text may hold HTML. It stays text."""
    hostile = [
        Line(
            line.test + INJECTION,
            line.trial,
            dataclasses.replace(
                line.entry,
                **{
                    field.name: strings(getattr(line.entry, field.name))
                    for field in dataclasses.fields(line.entry)
                    if field.name not in KEPT
                },
            ),
        )
        for line in synthetic_journal.lines(60)
    ]
    plain = page.render(session_of(synthetic_journal.lines(60)))
    text = page.render(session_of(hostile, [INJECTION]))
    assert "alert(1)" in text
    assert "{{ 7*7 }}" in text
    found = Reader(text)
    assert not found.wrong
    count = lambda reader, name: sum(tag == name for tag, _ in reader.tags)  # noqa: E731
    assert count(found, "script") == count(Reader(plain), "script") == 1
    assert count(found, "img") == 0
    assert not [attrs for _, attrs in found.tags if any(name.startswith("on") for name in attrs)]


def test_hostile_outcomes_and_verdicts_stay_text():
    """Even a damaged journal cannot add markup."""
    text = rendered(
        Line(
            "t.py::t",
            1,
            entries.State(exploration=0, state="s", verdict=INJECTION, path="a", step=1),
        ),
        Line(
            "t.py::t",
            1,
            entries.State(exploration=0, state="s2", verdict="recovered", path="a", step=2),
        ),
        Line("t.py::t", 1, entries.Rank(result=0, rank=0, outcome=INJECTION)),
        Line("t.py::t", 1, entries.Judgement(oracle="o", verdict=INJECTION)),
        Line("t.py::t", 1, entries.Trial(outcome=INJECTION)),
        Line("t.py::t", 0, entries.Test(outcome=INJECTION)),
    )
    assert sum(tag == "script" for tag, _ in Reader(text).tags) == 1
    assert not any(tag == "img" for tag, _ in Reader(text).tags)


@pytest.mark.slow
def test_same_session_gives_same_bytes(tmp_path):
    """In a different process too, with a different hash seed."""
    journal = tmp_path / "j.jsonl"
    synthetic_journal.write_journal(journal, 200)
    code = (
        "import sys; from pathlib import Path; from pytest_mlchaos.reports.html import write;"
        "from pytest_mlchaos.reports.journal_reader import read_journals;"
        "write(read_journals([Path(sys.argv[1])]), sys.argv[2])"
    )
    targets = [tmp_path / f"{seed}.html" for seed in (1, 2)]
    for seed, target in enumerate(targets, 1):
        subprocess.run(
            [sys.executable, "-c", code, journal, target],
            check=True,
            env={"PYTHONHASHSEED": str(seed)},
        )
    assert targets[0].read_bytes() == targets[1].read_bytes()


@pytest.mark.slow
def test_ten_thousand_trials_fit_into_a_megabyte():
    """Passing tests are shown in less detail, failures whole."""
    session = synthetic_journal.session(10_000)
    text = page.render(session)
    assert len(text.encode()) < 1_000_000
    for test in session.tests.values():
        for number, trial in test.trials.items():
            if trial.outcome == "failed" and len(test.trials) > 1:
                assert f"{trial.schedule}  (trial {number})" in text


def test_ten_thousand_failures_are_all_there():
    """One search in which each trial fails."""
    lines = [
        Line(
            "t.py::t",
            number,
            entries.Trial(outcome="failed", schedule=f"f(at={number})", error="E", cause="c"),
        )
        for number in range(1, 10_001)
    ]
    text = rendered(*lines, end("t.py::t", "failed", trials=10_000))
    assert len(text.encode()) < 1_000_000
    assert len(set(re.findall(r"f\(at=\d+\)  \(trial \d+\)", text))) == 10_000
    assert "All 10000" in text


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_ten_thousand_tests_share_rows(fails):
    """Each test is named. Those that fail keep their cause."""
    outcome = "failed" if fails else "passed"
    lines = []
    for number in range(10_000):
        name = f"tests/test_{number // 500}.py::test_case[{number}]"
        trial = entries.Trial(
            outcome=outcome, cause=f"E: cause {number}" if fails else "", error="E" if fails else ""
        )
        lines += [Line(name, 1, trial), end(name, outcome, trials=1)]
    text = rendered(*lines)
    assert len(text.encode()) < 1_000_000
    assert not Reader(text).wrong
    assert len(set(re.findall(r"test_case\[(\d+)\]", text))) == 10_000
    if fails:
        assert len(set(re.findall(r"E: cause (\d+)", text))) == 10_000
    counts = map(int, re.findall(r'data-count="(\d+)"', text))
    assert sum(counts) + page.MOST_ROWS == 10_000


def test_journal_is_embedded_whole_if_it_is_small():
    """It unpacks to the lines of the test, with the timings last."""
    lines = synthetic_journal.world("t.py::t", hung=True)
    text = rendered(*lines)
    packed = re.search(r'data-packed="([^"]*)"', text)[1]
    unpacked = gzip.decompress(base64.b64decode(packed)).decode()
    timed = [line for line in lines if isinstance(line.entry, entries.Timing)]
    rest = [line for line in lines if not isinstance(line.entry, entries.Timing)]
    assert unpacked == "\n".join(line.text() for line in [*rest, *timed])
    assert f"{len(lines)} lines" in text


def test_large_journal_keeps_failing_trials():
    """The lines that are left out are counted."""
    session = synthetic_journal.session(10_000)
    found = page.page_of(session)
    failing = next(test for test in found.tests if test.name == "test_bad_batches")
    packed, count, left_out = page.Budget(found).journals[failing.id]
    unpacked = gzip.decompress(base64.b64decode(packed)).decode().splitlines()
    assert len(unpacked) == count
    assert count + left_out == len(failing.log.lines)
    kept = {entries.parse_line(line).trial for line in unpacked}
    assert failing.failing.keys() <= kept


def test_real_latencies_come_from_the_timings():
    """On the real clock they are not in the entry itself."""
    lines = [
        Line("t.py::t", 1, entries.Requests(result=0, failed=(1,))),
        Line("t.py::t", 1, entries.Trial(outcome="passed")),
        Line("t.py::t", 1, entries.Timing(of="requests", starts=(0.0, 1.0), latencies=(0.5, 0.25))),
        end("t.py::t", "passed", trials=1),
    ]
    load = overview.page_of(session_of(lines)).tests[0].loads[0]
    assert dict(load.rows)["max"] == "500 ms"
    assert dict(load.rows)["Failed"] == "1 (50.0%)"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0421, "42.1 ms"),
        (1.5, "1.5 s"),
        (89.94, "89.9 s"),
        (125, "2 min 5 s"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations_are_written_for_people(seconds, told):
    """With the unit that fits."""
    assert test_view.seconds_text(seconds) == told


def test_write_refuses_a_directory(tmp_path):
    """One clear line."""
    with pytest.raises(BadArgument, match="--mlchaos-report must be a file, got the directory"):
        html.write(session_of([]), str(tmp_path))


def test_write_names_a_file_that_cannot_be_written(tmp_path):
    """The folder's name belongs to a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BadArgument, match=r"--mlchaos-report: '.*' cannot be written: "):
        html.write(session_of([]), str(tmp_path / "file" / "report.html"))


def test_missing_library_names_the_install_to_run(monkeypatch):
    """The extra has both libraries."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "jinja2" else find(name, *rest),
    )
    with pytest.raises(
        BadArgument,
        match=re.escape(
            "--mlchaos-report needs jinja2, which is not installed: python -m pip install "
            "'pytest-mlchaos[report]'"
        ),
    ):
        html.check()


def run_pytest(folder, *arguments):
    """A session of pytest in a process of its own."""
    (folder / "test_it.py").write_text(
        "from pytest_mlchaos import chaos\n"
        "def call():\n    return 1\n"
        "@chaos.call_failure(target='test_it:call', at=0)\n"
        "def test_call(mlchaos):\n    call()\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_option_writes_the_report_of_a_session(tmp_path):
    """The same report is made later from the journal."""
    done = run_pytest(tmp_path, "--mlchaos-report=out/report.html", "--mlchaos-journal=j.jsonl")
    assert done.returncode == 1, done.stderr
    text = (tmp_path / "out/report.html").read_text()
    assert "1 of 1 chaos test fails" in text
    assert "<code>@chaos.call_failure(" in section(text, "test_call")
    subprocess.run(
        [sys.executable, "-m", "pytest_mlchaos", "report", "j.jsonl", "-o", "later.html"],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert (tmp_path / "later.html").read_text() == text


@pytest.mark.slow
def test_option_refuses_a_directory_at_the_start(tmp_path):
    """No test runs."""
    done = run_pytest(tmp_path, f"--mlchaos-report={tmp_path}")
    assert done.returncode == 4
    assert "--mlchaos-report must be a file, got" in done.stderr
    assert "test session starts" not in done.stdout


def test_importing_the_entry_point_loads_no_library():
    """The plugin may check the option at the start of each session."""
    code = "import pytest_mlchaos.reports.html, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jinja2", "vl_convert", "markupsafe"} & set(done.stdout.split())
