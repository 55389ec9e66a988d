"""Write the report on one failing test: what failed, when, how far it reached, how to repeat it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...core.entries import State
from ...core.validation import count_text
from ..journal_reader import TestLog
from ..text import replay_command
from .blast_radius import blast_radius
from .timeline import timeline

__all__ = ["incident_text"]

SHOWN_STATES = 10


def incident_text(test: TestLog, reproduce: Sequence[str] = ()) -> str:
    """Return the report in Markdown.

    Args:
        test: The failing test.
        reproduce: Further paragraphs on how to reproduce it.
    """
    parts = (
        _head(test),
        _smallest(test),
        _section("Timeline", timeline(test)),
        _section("Blast radius", blast_radius(test)),
        _states(test),
        _reproduce(test, reproduce),
        _environment(test),
    )
    return "\n".join(line for part in parts for line in part)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield from (f"## {title}", "", *found, "")


def _head(test: TestLog) -> Iterator[str]:
    end = test.end
    assert end is not None
    yield f"# {test.nodeid} fails: {end.error or 'an error'}"
    yield ""
    if end.place:
        yield f"The first cause is at `{end.place}`."
        yield ""
    yield "## What happened"
    yield ""
    yield "```text"
    yield test.message or end.error
    yield "```"
    yield ""


def _smallest(test: TestLog) -> Iterator[str]:
    """Yield the schedule that fails, and how many were tried to find it."""
    end = test.end
    if end is None or not end.reproduce:
        return
    failed = [trial for trial in test.trials.values() if trial.outcome == "failed"]
    yield from ("## Smallest schedule", "", "```python", end.reproduce, "```", "")
    tried = test.trials.values() if len(test.trials) > 1 else ()
    if tried:
        bad = f"{len(failed)} of {count_text(len(test.trials), 'trial')} failed"
        yield from (f"{bad}. This is the smallest schedule among them.", "")


def _states(test: TestLog) -> Iterator[str]:
    states = [state for state in test.all(State) if state.verdict != "recovered"]
    if not states:
        return
    yield "## Crash states that do not recover"
    yield ""
    yield "| state | verdict | after step | cause |"
    yield "|---|---|---|---|"
    for state in states[:SHOWN_STATES]:
        cells = (f"`{state.state}`", state.verdict, str(state.step), state.cause)
        yield f"| {' | '.join(map(_cell, cells))} |"
    if len(states) > SHOWN_STATES:
        yield ""
        yield f"{len(states) - SHOWN_STATES} more are in `journal.jsonl`."
    yield ""


def _reproduce(test: TestLog, paragraphs: Sequence[str]) -> Iterator[str]:
    end = test.end
    assert end is not None
    yield "## How to reproduce it"
    yield ""
    yield "In a checkout of the project:"
    yield ""
    yield "```bash"
    yield replay_command(test.nodeid, end.replay)
    yield "```"
    if end.replay:
        yield ""
        yield "Or put the decorators of the smallest schedule on the test."
    for paragraph in paragraphs:
        yield from ("", paragraph)
    yield ""


def _environment(test: TestLog) -> Iterator[str]:
    end, source = test.end, test.provenance
    assert end is not None
    yield "## Environment"
    yield ""
    yield "| package | version |"
    yield "|---|---|"
    for name, version in end.environment.items():
        yield f"| {name} | {version} |"
    if source is not None and source.commit:
        changed = f", and {count_text(source.changed, 'changed file')}" if source.changed else ""
        yield f"| commit | {source.commit}{changed} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
