"""Edge cases from a schema: strategies for requests, records and parameters of faults."""

from __future__ import annotations

import datetime
import enum
import json
import math

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings

from pytest_mlchaos import chaos, faults
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.faults.edge_cases.values import LONGEST

faults.load()
QUICK = settings(max_examples=2000, derandomize=True, database=None)
EXAMPLE = {"age": 41, "income": 1.5, "country": "DE", "tags": ["a"], "seen": True}


ANY = settings(QUICK, phases=[Phase.generate])


def exists(strategy, condition, how=QUICK):
    """Return the simplest example, or with ``ANY`` any one, or fail."""
    return find(strategy, condition, settings=how)


@pytest.mark.parametrize(
    ("field", "is_edge"),
    [
        ("age", lambda age: age is not None and age > 2**63),
        ("age", lambda age: age == 42),
        ("income", lambda income: income is not None and math.isnan(income)),
        ("income", lambda income: income == -math.inf),
        ("country", lambda text: text == ""),
        ("country", lambda text: text == "unseen"),
        ("country", lambda text: text == "de"),
        ("country", lambda text: text is not None and len(text) == LONGEST),
        ("country", lambda text: text is not None and not text.isascii()),
        ("tags", lambda tags: tags == []),
        ("seen", lambda seen: seen is None),
    ],
)
def test_each_kind_of_edge_is_drawn(field, is_edge):
    """Extremes, the unseen, the empty, the missing."""
    record = exists(chaos.edge_cases(EXAMPLE), lambda record: is_edge(record[field]))
    others = {name: value for name, value in record.items() if name != field}
    assert others == {name: value for name, value in EXAMPLE.items() if name != field}


@given(record=chaos.edge_cases(EXAMPLE))
@settings(max_examples=50, database=None)
def test_each_record_has_an_edge_case(record):
    """None of them is the example."""
    assert record.keys() == EXAMPLE.keys()
    assert record != EXAMPLE


def test_several_examples_give_ranges_and_categories():
    """A number beyond all of them, and a text that is none of them."""
    strategy = chaos.edge_cases([{"n": 3, "c": "a"}, {"n": 9, "c": "b"}])
    assert exists(strategy, lambda record: record["n"] == 10)
    assert exists(strategy, lambda record: record["n"] == 9 and record["c"] == "A")


class Colour(enum.Enum):
    """Two of them."""

    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("schema", "is_edge"),
    [
        ("DE", lambda value: value == "unseen"),
        (str, lambda value: value == "\x00"),
        (7, lambda value: value == 8),
        (np.int64(7), lambda value: value == 8),
        (float, lambda value: value == math.inf),
        (datetime.date(2024, 1, 1), lambda value: value == datetime.date(1, 1, 1)),
        (b"x", lambda value: value == b""),
        (Colour, lambda value: value is Colour.BLUE),
        ([0.5], lambda value: value is not None and value != [] and value[0] is None),
        ({"inner": {"n": 1}}, lambda value: value["inner"] == {}),
        ({"inner": {"n": 1}}, lambda value: value["inner"] == {"n": None}),
        ({"n": int}, lambda value: value["n"] == -(2**64)),
    ],
)
def test_single_values_types_and_nested_records(schema, is_edge):
    """A schema of any form."""
    assert exists(chaos.edge_cases(schema), is_edge) is not Ellipsis


@pytest.mark.slow
def test_a_model_of_pydantic_gives_json_around_its_bounds():
    """Bounds, lengths, allowed values, optional parts and parts of their own."""
    pydantic = pytest.importorskip("pydantic")
    from typing import Literal

    class Part(pydantic.BaseModel):
        weight: float

    class Request(pydantic.BaseModel):
        age: int = pydantic.Field(ge=0, le=120)
        name: str = pydantic.Field(max_length=5)
        kind: Literal["a", "b"]
        at: datetime.datetime
        part: Part | None = None
        scores: list[float]

    strategy = chaos.edge_cases(Request)
    for is_edge in (
        lambda one: one["age"] == 120,
        lambda one: one["age"] == 121,
        lambda one: one["age"] == -1,
        lambda one: one["name"] == "aaaaa",
        lambda one: one["name"] == "aaaaaa",
        lambda one: one["kind"] == "unseen",
        lambda one: one["at"] == "9999-12-31T23:59:59.999999",
        lambda one: one["part"] == {"weight": None},
        lambda one: one["scores"] == [],
    ):
        found = exists(strategy, is_edge, ANY)
        json.dumps(found)
    usual = exists(strategy, lambda one: one["age"] == 121 and one["kind"] == "a")
    Request(**{**usual, "age": 1})  # all else is valid


@pytest.fixture(scope="module")
def table():
    """One column of each kind."""
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(
        {
            "small": pd.Series([1, 2], dtype="int8"),
            "maybe": pd.Series([1, None], dtype="Int64"),
            "real": pd.Series([0.5, 2.0], dtype="float32"),
            "text": ["a", "b"],
            "kind": pd.Categorical(["x", "y"]),
            "when": pd.to_datetime(["2024-01-01", "2024-01-02"]),
            "flag": [True, False],
        }
    )


@pytest.mark.parametrize(
    ("column", "is_edge"),
    [
        ("small", lambda values: (values == -128).any()),
        ("small", lambda values: (values == 3).any()),
        ("maybe", lambda values: values.isna().any()),
        ("maybe", lambda values: (values == 2**63 - 1).fillna(False).any()),
        ("real", lambda values: values.isna().any()),
        ("real", lambda values: (values == math.inf).any()),
        ("text", lambda values: (values == "").any()),
        ("kind", lambda values: (values == "unseen").any()),
        ("when", lambda values: values.isna().any()),
        ("when", lambda values: (values.dt.year == 1970).any()),
    ],
)
def test_a_table_keeps_its_columns_and_dtypes(table, column, is_edge):
    """Only values that the dtype can hold appear."""
    found = exists(chaos.edge_cases(table, rows=2), lambda one: is_edge(one[column]), ANY)
    assert list(found.columns) == list(table.columns)
    assert len(found) == 2
    same = [name for name in table if name != "kind"]
    assert (found.dtypes[same] == table.dtypes[same]).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda table: {}, "at least one field"),
        (lambda table: [{}], "at least one field"),
        (lambda table: object(), "an example must be a number"),
        (lambda table: {"a": table}, "an example must be a number"),
        (lambda table: None, "must be an example, a type or a table"),
        (lambda table: set, "a type must be one of"),
        (lambda table: table[:0], "rows and columns as examples"),
        (lambda table: table["text"], "DataFrame of pandas, got Series"),
        (lambda table: table[["text", "text"]], "different names"),
    ],
)
def test_a_schema_that_says_nothing_is_refused(table, make, says):
    """The message says what is missing."""
    with pytest.raises(BadArgument, match=says):
        chaos.edge_cases(make(table))


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, 10**6])
def test_a_number_of_rows_is_checked(table, rows):
    """From one on."""
    with pytest.raises(BadArgument, match="rows must be from 1"):
        chaos.edge_cases(table, rows=rows)


def test_a_schedule_with_nan_in_a_record_reads_back():
    """It is what a failing test prints."""
    text = "malformed_request(at=0, value={'a': nan, 'b': [-inf, {'c': inf}]})"
    (fault,) = Schedule.parse(text).faults
    assert math.isnan(fault.value["a"])
    assert fault.value["b"] == [-math.inf, {"c": math.inf}]
    assert Schedule((fault,)).line == text


@pytest.mark.slow
def test_a_service_is_searched_with_edge_cases(example):
    """The smallest record that breaks it is named, and can be replayed."""
    tests = example.with_tests("""
        from pytest_mlchaos import chaos

        def score(request):
            try:
                return round(request["income"] / 1000) + len(request["country"])
            except TypeError:
                return "refused"

        EXAMPLE = {"income": 1500.0, "country": "DE"}

        @chaos.malformed_request(value=chaos.edge_cases(EXAMPLE), at=0)
        @chaos.settings(max_trials=60)
        def test_score(mlchaos):
            replies = mlchaos.serve(score).drive([EXAMPLE] * 2).replies
            assert replies[0].error is None
    """)
    result = tests.run(failed=1)
    assert result.has("cannot convert float")
    tests.run("--mlchaos-replay", result.replay, failed=1)
