"""Validators and drift monitors of other libraries are alerts."""

from __future__ import annotations

import pytest

HEAD = """
import numpy as np
import pandas as pd
from pytest_mlchaos import DriftMonitor, chaos


def rows():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"age": rng.uniform(20, 80, 200), "city": ["Bern", "Basel"] * 100})


def clean(table):
    return table.dropna()


def watched(mlchaos, alert):
    watch = mlchaos.watch(alert)
    mlchaos.pipeline(clean, rows())
    watch.assert_fired(within=0)


"""
TEST = """
@chaos.missing_values(column="age", fraction=0.2, at=0)
def test_missing(mlchaos):
    watched(mlchaos, {alert})
"""


def test_a_drift_monitor_is_an_alert(example):
    """It looks at each table that passes."""
    pytest.importorskip("pandas")
    pytest.importorskip("scipy.special")
    test = TEST.format(alert="DriftMonitor(rows()).update")
    example.with_file("test_it.py", HEAD + test).run(passed=1)


@pytest.mark.slow
def test_a_schema_of_pandera_is_an_alert(example):
    """Its error counts."""
    pytest.importorskip("pandera")
    head = """
import pandera.pandas as pa

schema = pa.DataFrameSchema({"age": pa.Column(float, nullable=False)})
"""
    project = example.with_file("test_it.py", HEAD + head + TEST.format(alert="schema.validate"))
    project.run(fresh=True, passed=1)


@pytest.mark.slow
def test_an_expectation_of_great_expectations_is_an_alert(example):
    """Its result is not an exception, so a function reads it."""
    pytest.importorskip("great_expectations")
    head = """
import great_expectations as gx

context = gx.get_context(mode="ephemeral")
asset = context.data_sources.add_pandas("frames").add_dataframe_asset("rows")
definition = asset.add_batch_definition_whole_dataframe("all")
expectation = gx.expectations.ExpectColumnValuesToNotBeNull(column="age")


def is_broken(table):
    batch = definition.get_batch(batch_parameters={"dataframe": table})
    return not batch.validate(expectation).success
"""
    project = example.with_file("test_it.py", HEAD + head + TEST.format(alert="is_broken"))
    project.run(fresh=True, passed=1)
