"""Faults of streams of events, and of stores that are down or answer by half."""

from __future__ import annotations

import datetime

import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.sites import Visit
from pytest_mlchaos.engine.streams import Source
from pytest_mlchaos.testing import strike

faults.load()


def stream(name, events, **keywords):
    """The events as they come out of a stream."""
    return list(strike(create(name, **keywords), events, stream=True).outcomes)


def one(name, value, **keywords):
    """Return the outcome of one call under a strike."""
    (outcome,) = strike(create(name, at=0, **keywords), [value]).outcomes
    return outcome


def test_an_event_is_overtaken_in_a_stream():
    """By as many as asked for, or by those that are left."""
    assert stream("out_of_order_events", range(6), behind=2, at=1) == [0, 2, 3, 1, 4, 5]
    assert stream("out_of_order_events", range(3), behind=9, at=1) == [0, 2, 1]
    assert not strike(create("out_of_order_events", at=2), [0, 1, 2], stream=True).journal


def test_an_event_comes_again_in_a_stream():
    """After the given number of others, at the latest at the end."""
    assert stream("duplicate_events", range(4), after=2, at=1) == [0, 1, 2, 3, 1]
    assert stream("duplicate_events", range(3), after=1, at=2) == [0, 1, 2, 2]


def test_a_delayed_event_comes_at_the_end_at_the_latest():
    """Its consumer waits there for the rest of the delay."""
    result = strike(create("delayed_delivery", by="5m", at=1), range(4), stream=True)
    assert list(result.outcomes) == [0, 2, 3, 1]
    assert result.duration == pytest.approx(300, abs=0.1)


def test_events_in_lists_and_iterators_are_struck():
    """Each keeps its type. Nothing is lost."""
    events = tuple(range(20))
    moved = one("out_of_order_events", events, fraction=0.25, behind=4)
    assert type(moved) is tuple
    assert sorted(moved) == sorted(events)
    assert moved != events
    again = one("duplicate_events", list(events), fraction=0.25)
    assert len(again) == 25
    assert list(dict.fromkeys(again)) == list(events)
    assert list(one("out_of_order_events", iter(events), behind=3))[:5] == [1, 2, 3, 0, 4]
    assert list(one("duplicate_events", (n for n in range(3)))) == [0, 1, 0, 2]
    assert "late_rows" in str(one("delayed_delivery", [1, 2]))
    assert "must be a list of events or an iterator, got int" in str(one("duplicate_events", 3))


def test_half_an_answer_has_the_first_rows():
    """Cut rows, columns, and the rows inside a reply."""
    assert one("half_answer", [{"a": n} for n in range(4)]) == [{"a": 0}, {"a": 1}]
    assert one("half_answer", {"a": [1, 2, 3], "b": [4, 5, 6]}, keep=0.4) == {"a": [1], "b": [4]}
    assert one("half_answer", {"n": 2, "rows": [{"a": 1}, {"a": 2}]})["rows"] == [{"a": 1}]
    assert stream("half_answer", range(5), at=2) == [0, 1]
    assert "has no rows that could be missing" in str(one("half_answer", {"a": 1}))


def test_the_clocks_of_some_producers_are_off():
    """All rows of a producer that is hit are off, and no others."""
    noon = datetime.datetime(2024, 5, 1, 12)
    rows = [{"host": "abc"[number % 3], "at": noon} for number in range(12)]
    fresh = one("clock_skew", rows, producer="host", by="1h", fraction=0.1)
    off = {row["host"] for row in fresh if row["at"] != noon}
    assert len(off) == 1
    assert all((row["at"] != noon) == (row["host"] in off) for row in fresh)
    assert "has times of 1 producer" in str(
        one("clock_skew", rows[:1] * 3, column="at", producer="host")
    )


@pytest.mark.slow
def test_stores_fail_for_a_time_and_writes_stop_half_way(example):
    """Back-offs outlast an outage on the clock. A write leaves its first rows."""
    example.with_file(
        "store.py",
        """
        ROWS = []
        def get(): return 1
        def put(rows): ROWS.extend(rows)
        def events(): yield from range(5)
        """,
    ).with_tests("""
        import pytest, time
        import store

        @chaos.feature_store_down(target="store:get", duration="10m", at=1)
        def test_outage(mlchaos):
            start, failures = mlchaos.clock.now(), 0
            assert store.get() == 1
            while True:
                try:
                    assert store.get() == 1
                    break
                except ConnectionError:
                    failures += 1
                    time.sleep(60)
            assert failures == 10
            assert 600 <= mlchaos.clock.now() - start < 601
            assert store.get() == 1
            assert len(mlchaos.journal) == 10

        @chaos.partial_materialization(target="store:put", keep=0.5, at=0)
        def test_write_that_fails():
            store.ROWS.clear()
            with pytest.raises(ConnectionError):
                store.put([1, 2, 3, 4])
            assert store.ROWS == [1, 2]
            store.put([5])
            assert store.ROWS == [1, 2, 5]

        @chaos.partial_materialization(target="store:put", then="ends", at=0)
        def test_write_that_ends():
            store.ROWS.clear()
            store.put(rows=[1, 2, 3, 4])
            assert store.ROWS == [1, 2]

        @chaos.delayed_delivery(target="store:events", by="2m", at=1)
        def test_delayed():
            seen = []
            for event in store.events():
                seen.append(event)
                time.sleep(60)
            assert seen == [0, 2, 3, 1, 4]
    """).run(fresh=True, passed=4)


@pytest.mark.parametrize(
    ("event", "repeated", "reordered"),
    [
        ({"id": 3, "amount": 1.0}, True, False),
        ({"eventTime": 3}, True, True),
        ({"order_id": "a", "created": "2026-01-05T10:00:00"}, True, True),
        ({"user": "a", "amount": 1.0}, False, False),
        (2.5, False, False),
    ],
)
def test_bad_data_disturbs_events_that_can_be_told_apart(event, repeated, reordered):
    """A sound program cannot notice that a number comes twice."""
    members = {one.name: one for one, _ in create("bad_data", target="a:b").members()}
    visit = Visit("call.result", 0, [event])
    assert members["duplicate_events"].possible(visit) is repeated
    assert members["out_of_order_events"].possible(visit) is reordered
    assert create("duplicate_events", target="a:b").possible(visit)
    without = {one.name: one for one, _ in create("bad_data").members()}
    assert not without["duplicate_events"].possible(visit)


def test_an_event_that_one_fault_delays_is_not_lost_when_another_reaches_the_end():
    """The end of the stream, as one fault has seen it, waits for postponed events."""
    source = Source("stream", iter([1]).__next__)
    source.postpone(2, lambda: False, lambda: None)
    assert source.pull() == 1
    source.end()
    assert not source.ended
    assert source.pull() == 2
    assert source.ended
    with pytest.raises(StopIteration):
        source.pull()
