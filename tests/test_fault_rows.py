"""Faults of data that ``where={column: value}`` limits to some rows, samples or images."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import FAULTS, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.errors import BadArgument, PayloadMismatch
from pytest_mlchaos.faults.rows import RowFault
from pytest_mlchaos.faults.tables.base import table_of
from pytest_mlchaos.oracles.state import first_difference
from pytest_mlchaos.testing import strike as strike_visits

faults.load()

ROWS = 40
GROUPS = ["a", "a", "b", "a"] * (ROWS // 4)
OURS = np.array(GROUPS) == "b"
B = {"group": "b"}
RECORDS = [
    {"group": group, "income": 10.0 + row, "age": row, "city": f"Köln {row}"}
    for row, group in enumerate(GROUPS)
]


def table(library):
    """A table of incomes, as one library holds it."""
    if library == "records":
        return [dict(record) for record in RECORDS]
    if library == "numpy":
        kinds = [("group", "U1"), ("income", float), ("age", int), ("city", "U16")]
        return np.array([tuple(record.values()) for record in RECORDS], dtype=kinds)
    module = pytest.importorskip(library)
    if library == "pyarrow":
        return module.Table.from_pylist(RECORDS)
    return module.DataFrame(RECORDS)


def strike(fault, payload):
    """Strike one payload, and return what becomes of it."""
    (outcome,) = strike_visits(fault, [payload]).outcomes
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def changed_rows(before, after):
    """Return which rows differ."""
    one, other = table_of(before), table_of(after)
    differs = np.zeros(ROWS, dtype=bool)
    for place in range(len(one.names)):
        values = [[*map(repr, each.column(place).plain_values())] for each in (one, other)]
        differs |= np.array(values[0]) != np.array(values[1])
    return differs


# -- the tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "polars", "numpy", "records"])
@pytest.mark.parametrize(
    "fault",
    [
        {"name": "missing_values", "column": "income", "fraction": 1.0},
        {"name": "missing_values", "column": "income", "fraction": 0.5, "mechanism": "mnar"},
        {"name": "outliers", "column": "income", "fraction": 0.5},
        {"name": "unseen_category", "column": "city", "fraction": 0.5},
        {"name": "encoding_errors", "column": "city", "fraction": 0.5},
        {"name": "swapped_values", "column": "income", "fraction": 0.5},
        {"name": "stale_feature", "column": "income", "fraction": 0.5},
        {"name": "out_of_order_rows", "fraction": 1.0},
    ],
    ids=lambda fault: f"{fault['name']}-{fault.get('mechanism', '')}",
)
def test_table_fault_strikes_the_rows_alone(fault, library):
    """The share is one of the rows that are named, and the other rows stay as they were."""
    name = fault["name"]
    keywords = {key: value for key, value in fault.items() if key != "name"}
    before = table(library)
    after = strike(create(name, where=B, at=0, **keywords), table(library))
    differs = changed_rows(before, after)
    assert not differs[~OURS].any()
    assert differs.sum() == round(keywords["fraction"] * OURS.sum())


def test_rows_can_be_lost_or_doubled_in_one_group():
    """Late rows of one group never come, as if its source were dropped."""
    pytest.importorskip("pandas")
    lost = strike(create("late_rows", where=B, fraction=1.0, at=0), table("pandas"))
    assert set(lost["group"]) == {"a"}
    assert len(lost) == (~OURS).sum()
    twice = strike(create("duplicate_rows", where=B, fraction=1.0, at=0), table("pandas"))
    assert (twice["group"] == "b").sum() == 2 * OURS.sum()


@pytest.mark.parametrize(
    "rows",
    [
        {"age": lambda age: age >= 30, "group": ["b", "c"]},
        lambda row: row["age"] >= 30 and row["group"] == "b",
    ],
)
def test_rows_may_be_functions(rows):
    """A function of a value, or of a whole row, chooses as well."""
    before = table("records")
    fault = create("missing_values", column="income", rows=rows, fraction=1.0, at=0)
    after = strike(fault, table("records"))
    assert np.flatnonzero(changed_rows(before, after)).tolist() == [30, 34, 38]


@pytest.mark.parametrize("kind", ["numpy", "torch", "list of samples"])
@pytest.mark.parametrize(
    "fault",
    [
        {"name": "corrupt_batch", "kind": "nan", "fields": "x"},
        {"name": "corrupt_batch", "kind": "noise", "fields": "x", "pattern": "samples"},
        {"name": "distribution_shift", "fields": "x"},
        {"name": "corrupt_image", "kind": "gaussian_noise"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_batch_fault_strikes_the_samples_alone(fault, kind):
    """Samples of one group are changed in all fields that the fault takes."""
    rng = np.random.default_rng(0)
    images = rng.random((8, 3, 8, 8)).astype("float32")
    group = np.arange(8) % 2
    if kind == "list of samples":
        batch = [
            {"x": image, "group": np.array(number)}
            for image, number in zip(images, group.tolist(), strict=True)
        ]
        if fault["name"] == "corrupt_image":
            pytest.skip("images in a list of samples are found by their shape, as elsewhere")
        where = lambda sample: int(sample[0]["group"]) == 1  # noqa: E731
    else:
        convert = pytest.importorskip("torch").from_numpy if kind == "torch" else np.copy
        batch = {"x": convert(images), "group": convert(group)}
        where = {"group": 1}
    keywords = {key: value for key, value in fault.items() if key != "name"}
    if kind == "list of samples" and "fields" in keywords:
        keywords.pop("fields")
    after = strike(create(fault["name"], rows=where, at=0, **keywords), batch)
    found = (
        np.stack([sample["x"] for sample in after])
        if isinstance(after, list)
        else np.asarray(after["x"])
    )
    differs = (found != images).reshape(8, -1).any(1)
    assert differs.tolist() == (group == 1).tolist()


def test_no_matching_row_is_no_strike():
    """A table without the group stays the same object."""
    payload = table("records")
    fault = create("missing_values", column="income", where={"group": "z"}, at=0)
    assert strike(fault, payload) is payload


def test_wrong_rows_are_refused():
    """A column that is missing, a fault of whole columns, and rows that are not a rule."""
    with pytest.raises(PayloadMismatch, match="names 'grup', which is not there"):
        strike(
            create("missing_values", column="income", where={"grup": "b"}, at=0), table("records")
        )
    with pytest.raises(BadArgument, match="where must be a predicate"):
        create("missing_feature", where=B, at=0)
    for rows in ({}, 3, [1]):
        with pytest.raises(BadArgument, match="rows must be a dict"):
            create("missing_values", rows=rows)


def test_rows_print_and_read_back():
    """A dict prints as the argument that would recreate it."""
    fault = create("missing_values", column="income", where=B, at=0)
    assert Schedule.parse(repr(fault)).faults == (fault,)
    assert "rows={'group': 'b'}" in repr(fault)


def test_faults_that_take_rows():
    """All faults of values in tables and batches, of images and of texts take rows."""
    named = {name for name, fault in FAULTS.items() if issubclass(fault, RowFault)}
    assert {"corrupt_batch", "corrupt_image", "label_noise", "typos", "late_rows"} <= named
    assert not {"missing_feature", "wrong_shape", "drop_batch"} & named


@pytest.mark.parametrize("kind", ["table", "batch"])
def test_input_is_kept_and_the_seed_decides(kind):
    """The original object does not change, and the same seed strikes the same rows."""
    if kind == "table":
        make = lambda: table("records")  # noqa: E731
        fault = create("missing_values", column="income", where=B, fraction=0.5, at=0)
    else:
        make = lambda: {"x": np.ones((8, 2)), "group": np.arange(8) % 2}  # noqa: E731
        fault = create("corrupt_batch", fraction=0.5, where={"group": 1}, at=0)
    payload = make()
    first, second = strike(fault, payload), strike(fault, make())
    assert first_difference(payload, make()) is None
    assert first_difference(first, second) is None
    assert first_difference(first, payload) is not None
