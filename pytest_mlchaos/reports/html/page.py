"""Render the page with jinja2. Everything that an entry says is escaped."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.entries import Line, Progress, Timing
from ..fault_coverage import STATES
from ..journal_reader import SessionLog
from ..text import quote
from .overview import Page, page_of
from .test_view import TestView, seconds_text
from .vega_charts import latency_chart, loss_chart

__all__ = ["render"]

MOST_CHARTS = 24
"""The number of passing tests with charts and a timeline. Tests that fail always have them."""
MOST_SECTIONS = 100
"""The number of passing tests with figures."""
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
    """Decide how much of the passing tests fits into the page. Failures are always whole."""

    def __init__(self, page: Page) -> None:
        passing = [test.id for test in page.tests if test.outcome in ("passed", "skipped")]
        self._no_charts = frozenset(passing[MOST_CHARTS:])
        self._no_figures = frozenset(passing[MOST_SECTIONS:])
        self.journals = _journals(page.tests)

    def charts(self, test: TestView) -> bool:
        """Return True if the test has charts."""
        return test.id not in self._no_charts

    def figures(self, test: TestView) -> bool:
        """Return True if the test has figures."""
        return test.id not in self._no_figures


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
        quoted=quote,
        loss_chart=lambda one: Markup(loss_chart(one.golden, one.run)),
        latency_chart=lambda one: Markup(latency_chart(one.requests, one.bounds)),
    )
    return environment.get_template("page.html.j2")


@functools.cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


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
        return test.log.lines
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
