"""Write the text of an issue about one failing test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...core.entries import State, StrikeEntry
from ..journal_reader import TestLog
from ..text import replay_command

__all__ = ["issue_text"]

SHOWN_STRIKES = 10
SHOWN_STATES = 10


def issue_text(test: TestLog, *, has_state: bool, left_out: Sequence[str]) -> str:
    """Return the issue in Markdown.

    Args:
        test: The failing test.
        has_state: True if the crash state is next to the issue.
        left_out: What ``repro.py`` does not have.
    """
    return "\n".join(
        [*_head(test), *_reproduce(test, has_state, left_out), *_facts(test), *_environment(test)]
    )


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


def _reproduce(test: TestLog, has_state: bool, left_out: Sequence[str]) -> Iterator[str]:
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
        yield "Or put these decorators on the test:"
        yield ""
        yield "```python"
        yield end.reproduce
        yield "```"
    yield ""
    yield (
        "`python repro.py` does it without a checkout. "
        "The script has the test and the modules that it imports."
    )
    yield from left_out
    if has_state:
        yield ""
        yield (
            "`state.tar.gz` is the work directory as the crash left it. "
            "It holds files of the job, so look at it before you publish it."
        )
    yield ""


def _facts(test: TestLog) -> Iterator[str]:
    states = [state for state in test.all(State) if state.verdict != "recovered"]
    if states:
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
    last = max((line.trial for line in test.lines), default=0)
    strikes = test.all(StrikeEntry, last)
    if strikes:
        yield "## Faults that struck in the failing trial"
        yield ""
        for strike in strikes[:SHOWN_STRIKES]:
            details = ", ".join(f"{name}={value}" for name, value in strike.details.items())
            yield (
                f"- `{strike.fault}` at `{strike.site}` {strike.visit}"
                f"{f' ({details})' if details else ''}"
            )
        if len(strikes) > SHOWN_STRIKES:
            yield f"- {len(strikes) - SHOWN_STRIKES} more are in `journal.jsonl`"
        yield ""


def _environment(test: TestLog) -> Iterator[str]:
    end = test.end
    assert end is not None
    yield "## Environment"
    yield ""
    yield "| package | version |"
    yield "|---|---|"
    for name, version in end.environment.items():
        yield f"| {name} | {version} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
