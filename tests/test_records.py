"""Faults of data strike records: dicts and lists of Python numbers, as feature stores and JSON give
them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import PayloadMismatch
from pytest_mlchaos.testing import strike

faults.load()


def rows():
    """Eight samples as JSON gives them."""
    return [
        {"id": f"u{place}", "age": 20.0 + place, "visits": place, "label": place % 2, "vip": True}
        for place in range(8)
    ]


def struck(payload, name, **keywords):
    """Return the payload after the visit, and the number of strikes. The input is not modified."""
    before = repr(payload)
    found = strike(create(name, at=0, **keywords), [payload], stream=True)
    assert repr(payload) == before
    assert len(found.journal) == 1
    return found.outcomes[0]


@pytest.mark.parametrize(
    "payload",
    [
        {"age": 40.0, "income": 3.5},
        {"age": 40, "income": 3},
        [0.5, 0.25],
        3.5,
        {"user": {"name": "x", "scores": [1.0, 2.0]}, "rows": [{"a": 1.0}, {"b": None}]},
        (1.0, {"deep": [[{"x": 2.0}, {"x": 3.0}]]}),
        [{"age": 1.0}, {"age": None}, {}],
        {"age": np.float32(1.5)},
    ],
    ids=str,
)
def test_all_numbers_of_a_record_become_nan(payload):
    """However they are nested; texts, truth values and None stay."""
    found = repr(struck(payload, "corrupt_batch", kind="nan"))
    digits = repr(payload).replace("float32", "float")
    assert not any(
        digit in found.replace("float32", "") for digit in "123456789" if digit in digits
    )
    assert found.count("nan") == sum(1 for _ in _floats(payload))


def _floats(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _floats(item)
    elif isinstance(value, (int, float, np.floating)) and not isinstance(value, bool):
        yield value


def test_a_list_of_dicts_is_a_table_of_columns():
    """A share of a column is hit; the types stay those of Python, and rows that are not hit are the
    same objects.
    """
    given = rows()
    found = struck(given, "corrupt_batch", kind="nan", fraction=0.25, fields="age")
    hit = [place for place, row in enumerate(found) if math.isnan(row["age"])]
    assert len(hit) == 2
    assert all(found[place] is given[place] for place in range(8) if place not in hit)
    assert {type(row["age"]) for row in found} == {float}


def test_whole_numbers_stay_whole_where_they_can():
    """Scaled integers are integers; a mean of columns decides what is the greatest."""
    found = struck(rows(), "corrupt_batch", kind="scale", magnitude=10.0, fields="visits")
    assert [row["visits"] for row in found] == [10 * place for place in range(8)]
    assert {type(row["visits"]) for row in found} == {int}
    assert {
        row["age"] for row in struck(rows(), "corrupt_batch", kind="saturate", fields="age")
    } == {27.0}


def test_labels_and_samples_of_records():
    """They are told by their names, and by rows; columns in a dict of lists as well."""
    found = struck(rows(), "label_noise", fraction=0.25)
    assert sum(new["label"] != old["label"] for new, old in zip(found, rows(), strict=True)) == 2
    assert struck(rows(), "short_batch", size=3) == rows()[:3]
    assert struck({"x": [1.0, 2.0], "y": [0, 1]}, "short_batch", size=1) == {"x": [1.0], "y": [0]}
    assert struck(rows(), "empty_batch") == []
    assert {row["label"] for row in struck(rows(), "class_imbalance", label=1, keep=0.0)} == {0}
    moved = struck(rows(), "distribution_shift", magnitude=2.0, fields="age")
    assert min(row["age"] for row in moved) > 20.0


def test_copies_of_records_share_nothing():
    """A consumer may change the one that it gets."""
    given = rows()
    first, again = strike(create("duplicate_batch", at=0), [given], stream=True).outcomes
    assert first == again
    assert first[0] is not again[0]


@pytest.mark.parametrize(
    "payload", [{"name": "x", "vip": True}, [], {}, None, {"n": 2**70}], ids=repr
)
def test_records_without_numbers_are_refused(payload):
    """There is nothing to strike."""
    (outcome,) = strike(create("corrupt_batch", at=0), [payload]).outcomes
    assert isinstance(outcome, PayloadMismatch)


@pytest.mark.slow
def test_a_feature_store_that_gives_records_is_struck(example):
    """Searched, as a call's results; a wrong score is silently different."""
    example.with_tests("""
        def features(user): return {"age": 40.0, "income": 3.5}
        def score(): return [sum(features(user).values()) for user in range(3)]

        @chaos.corrupt_batch(kind="nan", target="test_it:features")
        def test_nan(mlchaos): mlchaos.pipeline(score).assert_same_output()
    """).run(failed=1).has("SilentlyDifferent")


@pytest.mark.slow
def test_a_searched_visit_with_nothing_to_strike_is_passed_over(example):
    """The last block of a file is empty; if no visit has anything, the fault says why."""
    outcome = example.with_tests("""
        import io

        class Source(io.BytesIO):
            def chunk(self): return self.read(4)

        def load(text=b"abcdefgh"):
            source, out = Source(text), b""
            while block := source.chunk(): out += block
            if len(out) != len(text): raise OSError("short")
            return out or [0]

        @chaos.truncation(target="test_it:Source.chunk")
        def test_searched(mlchaos): mlchaos.pipeline(load).assert_same_output()
        @chaos.truncation(target="test_it:Source.chunk", at=chaos.EVERY)
        def test_every(mlchaos): mlchaos.pipeline(load).assert_same_output()
        @chaos.truncation(target="test_it:Source.chunk")
        def test_nothing(mlchaos): mlchaos.pipeline(load, b"").assert_same_output()
        @chaos.truncation(target="test_it:Source.chunk", at=2)
        def test_pinned(mlchaos): mlchaos.pipeline(load).assert_same_output()
    """).run(passed=2, failed=2)
    assert outcome.text.count("PayloadMismatch: truncation") >= 2
