"""Degenerate inputs of the statistical oracles get an error, or INCONCLUSIVE: never a pass.

Each area has a list of rows: (a short id, the call, the class of the error, a part of its message).
Rows are lambdas, so nothing is computed when the tests are collected.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_mlchaos import assert_converged, assert_no_drift, assert_not_worse
from pytest_mlchaos.errors import BadArgument, Drifted, Inconclusive, NotConverged, Worse

pytest.importorskip("scipy")

NAN, INF = math.nan, math.inf
EIGHT = [0.91, 0.90, 0.92, 0.89, 0.91, 0.90, 0.93, 0.88]
HUNDRED = np.linspace(0, 1, 100)

QUALITY = [
    ("loss-nan", lambda: assert_converged([1, NAN, 0], below=1), NotConverged, "nan at step 1"),
    ("loss-inf", lambda: assert_converged([1, INF], below=1), NotConverged, "inf at step 1"),
    ("loss-empty", lambda: assert_converged([], below=1), BadArgument, "must not be empty"),
    ("loss-text", lambda: assert_converged(["low"], below=1), BadArgument, "must be a number"),
    ("loss-bool", lambda: assert_converged([True], below=1), BadArgument, "must be a number"),
    ("loss-vectors", lambda: assert_converged([[1, 2]], below=1), BadArgument, "must be a number"),
    ("bound-nan", lambda: assert_converged([1.0], below=NAN), BadArgument, "a finite number"),
    (
        "window-long",
        lambda: assert_converged([1.0], below=1, window=2),
        BadArgument,
        "the number of losses",
    ),
    (
        "seeds-few",
        lambda: assert_not_worse(EIGHT[:4], EIGHT[:4], margin=0.1),
        BadArgument,
        "Run 5 seeds",
    ),
    (
        "seeds-lengths",
        lambda: assert_not_worse(EIGHT[:5], EIGHT, margin=0.1),
        BadArgument,
        "cannot be paired",
    ),
    (
        "golden-nan",
        lambda: assert_not_worse(EIGHT, [*EIGHT[:7], NAN], margin=0.1),
        BadArgument,
        "must be finite",
    ),
    (
        "chaos-nan",
        lambda: assert_not_worse([*EIGHT[:7], NAN], EIGHT, margin=9),
        Worse,
        "not finite for 1 of 8",
    ),
    ("seeds-none", lambda: assert_not_worse([], [], margin=0.1), BadArgument, "can never reach"),
    (
        "seeds-mixed",
        lambda: assert_not_worse(["a", *EIGHT[1:]], EIGHT, margin=0.1),
        BadArgument,
        "must be a number",
    ),
    (
        "seeds-noisy",
        lambda: assert_not_worse([0, 1] * 4, [1, 0] * 4, margin=0.01),
        Inconclusive,
        "pairs would",
    ),
]
DRIFT = [
    (
        "drift-nan-only",
        lambda: assert_no_drift(HUNDRED, np.full(100, NAN)),
        Drifted,
        "",
    ),
]
ROWS = [*QUALITY, *DRIFT]


@pytest.mark.parametrize(
    ("call", "error", "message"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_degenerate_input_never_passes(call, error, message):
    """The message says what is missing."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert message in str(caught.value)
