"""Provide the cases for the faults of streams and of feature stores."""

from __future__ import annotations

import itertools

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case
from tests.cases_basic import table_file, what_is_found

COUNT = itertools.count()


def event():
    """Return an event that differs from the one before, and from run to run alike."""
    return {"id": next(COUNT) % 8, "value": 1.5}


def events():
    """Return the events of one poll."""
    return [{"id": number} for number in range(10)]


def write():
    """Return the arguments of a write of rows."""
    return (events(),), {"table": "features"}


SHARES = [{"fraction": 0}, {"severity": 6}, {"target": " "}]
CASES = {
    "out_of_order_events": Case(
        create("out_of_order_events", behind=1),
        event,
        stream=True,
        bad=[*SHARES, {"behind": 0}],
        wrong=[],
    ),
    "out_of_order_events of lists": Case(
        create("out_of_order_events"), events, wrong=[lambda: 3], neutral=lambda: [1, 1, 1]
    ),
    "duplicate_events": Case(
        create("duplicate_events"), event, stream=True, bad=[*SHARES, {"after": 0}]
    ),
    "duplicate_events of lists": Case(
        create("duplicate_events", fraction=0.5), events, wrong=[lambda: 3], neutral=list
    ),
    "delayed_delivery": Case(
        create("delayed_delivery"), event, stream=True, bad=[{"by": 0}, {"by": "soon"}]
    ),
    "late_file": Case(
        create("late_file"),
        table_file,
        operation=what_is_found,
        bad=[{"path": " "}, {"delay": 0}, {"delay": "soon"}],
    ),
    "feature_store_down": Case(
        create("feature_store_down", target="a:b"),
        write,
        bad=[{"duration": "0s"}, {"duration": "soon"}],
    ),
    "half_answer": Case(
        create("half_answer"),
        events,
        bad=[{"keep": 1.5}, {"keep": -1}, {"severity": 6}],
        wrong=[lambda: 3, lambda: {"age": 3}],
    ),
    "partial_materialization": Case(
        create("partial_materialization", target="a:b"),
        write,
        operation=lambda arguments: len(arguments[0][0]),
        bad=[{"keep": 1.5}, {"then": "hangs"}, {"when": "after"}],
        wrong=[lambda: ((1,), {}), lambda: ((), {})],
    ),
}
