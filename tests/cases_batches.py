"""Provide the cases for the faults of batches."""

from __future__ import annotations

import itertools

import numpy as np

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case


def batch():
    """Eight samples of three classes; the features say which sample it is."""
    return {
        "x": np.arange(24.0, dtype=np.float32).reshape(8, 3),
        "y": np.arange(8) % 3,
        "id": [f"row {number}" for number in range(8)],
    }


_turn = itertools.cycle(range(8))


def batch_of_its_time():
    """The batches of a stream, which differ."""
    return batch() | {"x": np.full((8, 3), float(next(_turn)))}


def zeros():
    """A batch in which all is 0."""
    return {"x": np.zeros((8, 3)), "y": np.zeros(8, dtype=np.int64)}


def nothing():
    """A batch without numbers."""
    return ["text"]


def empty():
    """A batch without samples."""
    return {"x": np.ones((0, 3)), "y": np.ones(0, dtype=np.int64)}


def ragged():
    """Fields that do not agree on how many samples there are."""
    return {"x": np.ones((4, 3)), "y": np.ones(5, dtype=np.int64)}


def texts():
    """Fields of no numbers at all."""
    return {"x": np.array(["a", "b"]), "y": np.array(["a", "b"])}


def case(name, *, bad=(), wrong=(), stream=False, payload=batch, neutral=None, **keywords):
    """A case on the common batch."""
    return Case(
        create(name, **keywords), payload, bad=bad, wrong=wrong, stream=stream, neutral=neutral
    )


SHARES = [{"fraction": 0}, {"fraction": 1.5}, {"fraction": -0.1}]
FIELDS = [{"fields": [True]}, {"fields": []}, {"fields": 1.5}]
CASES = {
    "corrupt_batch": case(
        "corrupt_batch",
        kind="noise",
        fraction=0.3,
        bad=[
            *SHARES,
            *FIELDS,
            {"kind": "zero", "magnitude": 2.0},
            {"severity": 6},
            {"severity": 3},
        ],
        wrong=[nothing, empty, texts],
    ),
    "corrupt_batch with zeros": case("corrupt_batch", kind="zero", fraction=0.3, neutral=zeros),
    "corrupt_batch by scale": case("corrupt_batch", kind="scale", fraction=0.3, neutral=zeros),
    "corrupt_batch by saturation": case(
        "corrupt_batch", kind="saturate", pattern="samples", fraction=0.3, neutral=zeros
    ),
    "distribution_shift of labels": case("distribution_shift", kind="label", neutral=zeros),
    "drop_batch": case("drop_batch", stream=True, bad=[{"count": 0}]),
    "duplicate_batch": case("duplicate_batch", stream=True, bad=[{"copies": 0}]),
    "reorder_batches": case(
        "reorder_batches",
        window=2,
        stream=True,
        payload=batch_of_its_time,
        neutral=batch,
        bad=[{"window": 1}],
    ),
    "delay_batch": case("delay_batch", delay="10ms", bad=[{"delay": "soon"}, {"delay": -1}]),
    "stale_batch": case(
        "stale_batch", stream=True, payload=batch_of_its_time, neutral=batch, bad=[{"age": 0}]
    ),
    "short_batch": case(
        "short_batch",
        fraction=0.25,
        bad=[*SHARES, {"size": 0}, {"size": 4}, {"severity": 6}],
        wrong=[nothing, empty, ragged],
    ),
    "empty_batch": case("empty_batch", wrong=[nothing, empty, ragged], bad=[{"severity": 1}]),
    "label_noise": case(
        "label_noise",
        neutral=zeros,
        bad=[*SHARES, *FIELDS, {"classes": 1}, {"magnitude": 0.0}],
        wrong=[nothing, empty, texts],
    ),
    "class_imbalance": case(
        "class_imbalance",
        label=1,
        neutral=zeros,
        bad=[{"keep": 1.0}, {"keep": -0.1}, *FIELDS],
        wrong=[nothing, empty, texts, ragged],
    ),
    "distribution_shift": case(
        "distribution_shift",
        bad=[
            {"magnitude": 0.0},
            {"magnitude": float("nan")},
            {"kind": "concept", "magnitude": 1.5},
            *FIELDS,
        ],
        wrong=[nothing, empty, texts],
    ),
    "loader_failure": case(
        "loader_failure",
        error="OSError(5, 'Input/output error')",
        stream=True,
        bad=[{"error": "NoSuchError"}],
    ),
    "stream_interruption": case(
        "stream_interruption",
        resume_after=1,
        stream=True,
        bad=[{"resume_after": 0}, {"gap": "soon"}],
    ),
    "wrong_dtype": case("wrong_dtype", bad=FIELDS, wrong=[nothing]),
    "wrong_shape": case(
        "wrong_shape",
        kind="transposed",
        neutral=lambda: {"x": np.ones((3, 3))},
        bad=FIELDS,
        wrong=[nothing, lambda: np.ones(3)],
    ),
}
