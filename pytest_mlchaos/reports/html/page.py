"""Render the page with jinja2. Everything that an entry says is escaped."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.entries import Line, Progress, Timing
from ..fault_coverage import STATES
from ..journal_reader import SessionLog
from ..text import replay_command
from .overview import Page, page_of
from .test_view import TestView, seconds_text
from .vega_charts import latency_chart, loss_chart

__all__ = ["render"]

PASSING = ("passed", "skipped")
MOST_CHARTS = {True: 24, False: 80}
"""The number of tests with charts and a timeline: passing ones, and others."""
MOST_SECTIONS = {True: 100, False: 160}
"""The number of tests with figures. The text of a failure does not count as one."""
MOST_ROWS = 400
"""The number of tests of one outcome with a row of their own. The others share one row a file."""
MOST_JOURNAL_BYTES = 200_000
"""The size of all embedded journals."""
ALL = 1_000_000_000
JOURNAL_TRIALS = (
    (ALL, ALL),
    (100, ALL),
    (20, ALL),
    (5, ALL),
    (1, ALL),
    (0, 500),
    (0, 50),
    (0, 5),
    (0, 0),
)
"""The number of passing and of failing trials in an embedded journal. The first that fits is taken.

The lists of failures on the page are always whole.
"""


class Budget:
    """Decide how much of each test fits into the page. The text of a failure comes first."""

    def __init__(self, page: Page) -> None:
        self.tests, self.folded = _folded(page.tests)
        self.has_row = frozenset(test.id for test in self.tests)
        charts: set[str] = set()
        figures: set[str] = set()
        for passing in (True, False):
            some = [one.id for one in self.tests if (one.outcome in PASSING) == passing]
            charts.update(some[: MOST_CHARTS[passing]])
            figures.update(some[: MOST_SECTIONS[passing]])
        self._charts, self._figures = frozenset(charts), frozenset(figures)
        self.journals = _journals(self.tests)

    def charts(self, test: TestView) -> bool:
        """Return True if the test has charts."""
        return test.id in self._charts

    def figures(self, test: TestView) -> bool:
        """Return True if the test has figures."""
        return test.id in self._figures


def render(session: SessionLog, *, live: bool = False) -> str:
    """Return the page. Equal sessions give equal text."""
    page = page_of(session)
    script = _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text: str = _template().render(
        page=page,
        budget=Budget(page),
        live=live,
        style=_asset("style.css"),
        script=script,
        digest=digest,
    )
    return text


@functools.cache
def _template() -> Any:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["seconds"] = seconds_text
    environment.globals["states"] = STATES
    # These texts are ours: constant files, and charts that hold numbers alone.
    environment.filters["ours"] = Markup
    environment.globals.update(
        replay_command=replay_command,
        loss_chart=lambda one: Markup(loss_chart(one.golden, one.run)),
        latency_chart=lambda one: Markup(latency_chart(one.requests, one.bounds)),
    )
    return environment.get_template("page.html.j2")


@functools.cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


@dataclasses.dataclass(frozen=True, slots=True)
class Folded:
    """Tests that share a row, because there are too many.

    Attributes:
        outcome: Their outcome.
        folder: Their file.
        lines: A line for each: its name, and what it found if it did not pass.
        faults: Their faults.
    """

    outcome: str
    folder: str
    lines: Sequence[str]
    faults: Sequence[str]


def _folded(tests: Sequence[TestView]) -> tuple[list[TestView], list[Folded]]:
    """Return the tests with a row of their own, and the others by outcome and file."""
    counts: dict[str, int] = {}
    rows: list[TestView] = []
    shared: dict[tuple[str, str], list[TestView]] = {}
    for test in tests:
        counts[test.outcome] = counts.get(test.outcome, 0) + 1
        if counts[test.outcome] <= MOST_ROWS:
            rows.append(test)
        else:
            shared.setdefault((test.outcome, test.folder), []).append(test)
    return rows, [
        Folded(
            outcome,
            folder,
            [test.name if outcome in PASSING else f"{test.name}  {test.headline}" for test in some],
            sorted({fault for test in some for fault in test.faults}),
        )
        for (outcome, folder), some in shared.items()
    ]


def _journals(tests: Sequence[TestView]) -> dict[str, tuple[str, int, int]]:
    """Return the journal of each test: compressed text, its lines, and the lines left out."""
    for passing, failing in JOURNAL_TRIALS:
        found: dict[str, tuple[str, int, int]] = {}
        size = 0
        for test in tests:
            lines = _selected(test, passing, failing)
            text = _packed(lines)
            found[test.id] = (text, len(lines), len(test.log.lines) - len(lines))
            size += len(text)
            if size > MOST_JOURNAL_BYTES:
                break
        else:
            return found
    return {}


def _selected(test: TestView, passing: int, failing: int) -> Sequence[Line]:
    """Return the lines of the test, of its first passing and failing trials, and of the shown one."""
    if passing == ALL:
        # In a file, timings are after all others. The session itself has them in between.
        return sorted(test.log.lines, key=lambda line: isinstance(line.entry, (Timing, Progress)))
    kept = {0, test.shown_trial, *sorted(test.failing)[:failing]}
    kept.update(sorted(test.log.trials.keys() - test.failing.keys())[:passing])
    return [
        line
        for line in test.log.lines
        if line.trial in kept and not isinstance(line.entry, (Timing, Progress))
    ]


def _packed(lines: Sequence[Line]) -> str:
    text = "\n".join(line.text() for line in lines)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
