"""Faults of tables on plain Python: what ``json.loads`` and clients of feature stores return."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
from typing import NamedTuple

import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import strike

faults.load()
NOON = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A frozen record."""

    age: int
    tags: list


class Pair(NamedTuple):
    """A named tuple."""

    age: int
    city: str


def struck(value, name, seed=1, **keywords):
    """The value after one strike; the value itself must not change."""
    before = copy.deepcopy(value)
    result = strike(create(name, at=0, **keywords), [value], seed=seed)
    assert value == before
    (outcome,) = result.outcomes
    if isinstance(outcome, Exception):
        raise outcome
    assert len(result.journal) == 1
    return outcome


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"age": 40, "tags": ["a"]}, {"age": None, "tags": ["a"]}),
        (Row(40, ["a"]), Row(None, ["a"])),
        (Pair(40, "Bern"), Pair(None, "Bern")),
        ([{"age": 1, "b": 2}, {"b": 3}], [{"age": None, "b": 2}, {"b": 3}]),
        ({"age": [7], "b": ["x"]}, {"age": [None], "b": ["x"]}),
        ({"user": {"age": 3}, "b": 1}, {"user": {"age": None}, "b": 1}),
        ({"rows": [{"age": 3}], "status": 200}, {"rows": [{"age": None}], "status": 200}),
    ],
    ids=["dict", "dataclass", "named tuple", "rows", "columns", "nested", "reply"],
)
def test_a_value_is_missing_from_records_of_each_form(value, expected):
    """The changed copy has the same type, and values that are not hit are the same objects."""
    column = "user.age" if isinstance(value, dict) and "user" in value else "age"
    fresh = struck(value, "missing_values", column=column)
    assert fresh == expected
    assert type(fresh) is type(value)
    if isinstance(value, Row):
        assert fresh.tags is value.tags


def test_a_model_of_pydantic_is_a_record():
    """The copy is a model of the same class, also with a value that it would not validate."""
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Features", age=(float, ...), seen=(datetime.datetime, ...))
    value = model(age=40, seen=NOON)
    assert struck(value, "missing_values", column="age") == model.model_construct(
        age=None, seen=NOON
    )
    assert struck(value, "stale_feature", age="2d").seen == NOON - datetime.timedelta(days=2)
    assert str(struck(value, "corrupt_batch").age) == "nan"


def test_rows_that_are_not_hit_are_the_same_objects():
    """A row with a changed value is a copy."""
    rows = [{"age": number, "user": {"id": number}} for number in range(10)]
    fresh = struck(rows, "missing_values", column="age")
    changed = [place for place in range(10) if fresh[place] is not rows[place]]
    assert len(changed) == 1
    assert fresh[changed[0]] == {"age": None, "user": {"id": changed[0]}}
    assert fresh[changed[0]]["user"] is rows[changed[0]]["user"]


def test_the_types_of_mappings_are_kept():
    """Also when a key goes, or gets a new name in its place."""
    value = collections.OrderedDict(a=1, b=2)
    assert struck(value, "missing_feature", column="a") == collections.OrderedDict(b=2)
    renamed = struck(value, "schema_drift", column="a")
    assert list(renamed.items()) == [("a_1", 1), ("b", 2)]
    assert type(renamed) is collections.OrderedDict


def test_a_field_that_a_class_declares_cannot_go():
    """The error names the way out."""
    with pytest.raises(Exception, match="mode='null' of missing_feature"):
        struck(Row(1, []), "missing_feature", column="age")
    assert struck(Row(1, []), "missing_feature", column="age", mode="null") == Row(None, [])


def test_lists_of_values_and_rows_of_a_cursor_are_tables():
    """A list has one column. The columns of tuples have numbers."""
    assert struck(["a", "b"], "missing_values").count(None) == 1
    assert struck([(1, "a"), (2, "b")], "missing_feature", column=1) == [(1,), (2,)]
    assert struck([1, 2], "schema_drift", kind="retyped") == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "shifted"),
    [
        ("2024-05-01T12:00:00Z", "2024-04-29T12:00:00Z"),
        ("2024-05-01 12:00:00.250", "2024-04-29 12:00:00.250"),
        ("2024-05-01T12:00+02:00", "2024-04-29T12:00+02:00"),
        ("2024-05-01", "2024-04-29"),
    ],
)
def test_times_in_texts_move_in_their_own_format(text, shifted):
    """Separator, digits and zone stay."""
    assert struck({"at": text, "age": 3}, "stale_feature", age="2d") == {"at": shifted, "age": 3}


def test_a_named_column_may_count_the_time_since_1970():
    """In seconds or milliseconds, by its size."""
    value = {"ts": 1_714_564_800_000, "age": 3}
    fresh = struck(value, "stale_feature", age="1h", column="ts")
    assert fresh == {"ts": 1_714_564_800_000 - 3_600_000, "age": 3}


def test_birthdays_stay_when_times_move_back():
    """Dates without a time move only without others."""
    value = {"born": datetime.date(1990, 1, 1), "at": NOON}
    assert struck(value, "stale_feature", age="1d") == {
        "born": datetime.date(1990, 1, 1),
        "at": NOON - datetime.timedelta(days=1),
    }


def test_batches_of_arrays_are_not_records():
    """They are refused as before, with their shapes."""
    numpy = pytest.importorskip("numpy")
    (refusal,) = strike(create("missing_values", at=0), [{"x": numpy.zeros(3), "y": 1}]).outcomes
    assert "is not a table but dict(x: float64[3], y: int)" in str(refusal)


def test_late_rows_of_columns_count_rows():
    """A mapping of lists has as many rows as its lists have values."""
    fault = create("late_rows", at=[0, 1], fraction=0.5)
    tables = [{"a": [1, 2], "b": [3, 4]}, {"a": [5, 6], "b": [7, 8]}]
    result = strike(fault, tables)
    assert [entry.details["caught_up"] for entry in result.journal] == [0, 1]
    assert len(result.outcomes[1]["a"]) == 2


def test_targets_that_return_records_are_struck(example):
    """An earlier value of the same key comes back, and ``json.loads`` loses a field."""
    example.with_file(
        "store.py",
        """
        import itertools
        CLOCK = itertools.count()
        class Store:
            def get(self, user):
                return {"user": user, "clicks": next(CLOCK)}
        """,
    ).with_tests("""
        import json
        from store import Store

        @chaos.stale_feature(target="store:Store.get", at=2)
        def test_an_earlier_value_of_the_same_key_comes_back():
            store = Store()
            first, other, stale = store.get(7), store.get(8), store.get(7)
            assert stale == first
            assert other["user"] == 8

        @chaos.missing_feature(target="json:loads", column="user.age", at=0)
        def test_a_reply_lacks_a_field():
            assert json.loads('{"user": {"age": 4, "id": 1}}') == {"user": {"id": 1}}
            assert json.loads('{"user": {"age": 4}}') == {"user": {"age": 4}}

        @chaos.stale_feature(target="store:Store.get", at=0)
        def test_without_an_earlier_value_it_says_so():
            Store().get(1)
    """).run(fresh=True, passed=2, failed=1).has(
        "there were 0 calls with the same arguments before it, so none 1 back"
    )
