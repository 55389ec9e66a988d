"""Degenerate inputs of the statistical oracles get an error, or INCONCLUSIVE: never a pass.

Each area has a list of rows: (a short id, the call, the class of the error, a part of its message).
Rows are lambdas, so nothing is computed when the tests are collected.
"""

from __future__ import annotations

import math
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pytest_mlchaos import (
    DriftMonitor,
    assert_abstention,
    assert_calibrated,
    assert_converged,
    assert_fair,
    assert_metric,
    assert_no_bias_amplification,
    assert_no_drift,
    assert_no_extraction,
    assert_no_inversion,
    assert_no_membership_leak,
    assert_no_memorised_canaries,
    assert_no_text_drift,
    assert_no_weak_slice,
    assert_not_overconfident,
    assert_not_worse,
    assert_robust,
    chaos,
    faults,
)
from pytest_mlchaos.breaking.baselines import Baselines
from pytest_mlchaos.breaking.levels import Levels
from pytest_mlchaos.breaking.verdicts import BreakingPoint, Found
from pytest_mlchaos.errors import BadArgument, Drifted, Inconclusive, NotConverged, Worse
from pytest_mlchaos.monitoring.alerts import make_alert
from pytest_mlchaos.monitoring.verdicts import _parse_within
from pytest_mlchaos.serving.alert_rules import AlertRule

# It cannot be imported twice: the run of an example forgets what it has imported.
pytest.importorskip("scipy.special")

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
WORDS = ["yes", "no"] * 50
PLANE = np.random.default_rng(0).normal(size=(100, 3))
SHARES = np.full((100, 4), 0.25)
TIMES = np.arange(100).astype("M8[h]")


def drifts(reference=HUNDRED, current=HUNDRED, **keywords):
    """Judge drift, unless the row gives other arguments."""
    return assert_no_drift(reference, current, **keywords)


def streams(*batches, reference=HUNDRED, **keywords):
    """Watch a stream."""
    monitor = DriftMonitor(reference, **keywords)
    for batch in batches:
        monitor.update(batch)
    return monitor.assert_no_drift()


SCORES = [0.2, 0.3, 0.25, 0.28]
RIGHT = [1, 0] * 50
HALVES = [0.4, 0.6] * 50
THREE = np.full((100, 3), 1 / 3)
METRICS = [
    ("metric-nan", lambda: assert_metric([0.9, NAN], at_least=0.5), BadArgument, "for sample 1"),
    ("metric-inf", lambda: assert_metric([0.9, INF], at_least=0.5), BadArgument, "must be finite"),
    ("metric-none", lambda: assert_metric([0.9, None], at_least=0.5), BadArgument, "NoneType"),
    ("metric-text", lambda: assert_metric(["a", "b"], at_least=0.5), BadArgument, "numbers"),
    ("metric-mixed", lambda: assert_metric([0.9, "b"], at_least=0.5), BadArgument, "numbers"),
    ("metric-scalar", lambda: assert_metric(0.9, at_least=0.5), BadArgument, "a list of numbers"),
    ("metric-2d", lambda: assert_metric([[0.9], [1]], at_least=0.5), BadArgument, "dimension"),
    ("metric-ragged", lambda: assert_metric([[1], [1, 2]], at_least=0), BadArgument, "one length"),
    ("metric-empty", lambda: assert_metric([], at_least=0.5), BadArgument, "must not be empty"),
    ("metric-one", lambda: assert_metric([0.9], at_least=0.5), Inconclusive, "Give at least 3"),
    ("metric-one-right", lambda: assert_metric([1], at_least=0.5), Inconclusive, "samples would"),
    ("metric-equal", lambda: assert_metric([0.9] * 9, at_least=0), Inconclusive, "use its seed"),
    ("metric-no-bound", lambda: assert_metric(SCORES), BadArgument, "it cannot fail"),
    ("metric-bound-nan", lambda: assert_metric(SCORES, at_least=NAN), BadArgument, "finite number"),
    (
        "metric-crossed",
        lambda: assert_metric(SCORES, at_least=2, at_most=1),
        BadArgument,
        "must not be above",
    ),
    (
        "metric-confidence",
        lambda: assert_metric(SCORES, at_least=0, confidence=95),
        BadArgument,
        "below 1",
    ),
    (
        "metric-hits",
        lambda: assert_metric(11, total=10, at_least=0.5),
        BadArgument,
        "at most total",
    ),
    ("metric-no-total", lambda: assert_metric(0, total=0, at_least=0), BadArgument, "1 or more"),
    (
        "metric-outside",
        lambda: assert_metric(SCORES, at_least=0, bounds=(0.25, 1)),
        BadArgument,
        "within bounds",
    ),
    (
        "metric-bounds",
        lambda: assert_metric(SCORES, at_least=0, bounds=(1, 0)),
        BadArgument,
        "lowest and the highest",
    ),
    (
        "statistic-few",
        lambda: assert_metric(SCORES, at_least=0, statistic=np.mean),
        Inconclusive,
        "needs 20 or more",
    ),
    (
        "statistic-nan",
        lambda: assert_metric(HALVES, at_least=0, statistic=lambda rows: NAN),
        BadArgument,
        "must return a finite number",
    ),
    ("abstained-nan", lambda: assert_abstention([1, NAN], at_most=1), BadArgument, "finite"),
    ("abstained-share", lambda: assert_abstention([0.5], at_most=1), BadArgument, "true or false"),
    ("abstained-empty", lambda: assert_abstention([], at_most=1), BadArgument, "not be empty"),
    ("abstained-no-bound", lambda: assert_abstention([1, 0]), BadArgument, "it cannot fail"),
    ("abstained-few", lambda: assert_abstention([1], at_least=0.5), Inconclusive, "samples would"),
    (
        "labels-lengths",
        lambda: assert_calibrated(RIGHT[:-1], HALVES),
        BadArgument,
        "must have one length",
    ),
    ("labels-few", lambda: assert_calibrated(RIGHT[:40], HALVES[:40]), Inconclusive, "at least 50"),
    ("labels-one", lambda: assert_calibrated([1] * 100, HALVES), Inconclusive, "of one kind"),
    ("labels-empty", lambda: assert_calibrated([], []), BadArgument, "must not be empty"),
    ("labels-text", lambda: assert_calibrated(["a"] * 100, HALVES), BadArgument, "whole numbers"),
    ("labels-two", lambda: assert_calibrated([2] * 100, HALVES), BadArgument, "true or false"),
    ("labels-nan", lambda: assert_calibrated([NAN] * 100, HALVES), BadArgument, "finite"),
    (
        "probability-nan",
        lambda: assert_calibrated(RIGHT, [*HALVES[1:], NAN]),
        BadArgument,
        "for sample 99",
    ),
    (
        "probability-logit",
        lambda: assert_calibrated(RIGHT, [3.0] * 100),
        BadArgument,
        "Are these logits?",
    ),
    (
        "classes-columns",
        lambda: assert_calibrated([3] * 100, THREE),
        BadArgument,
        "the columns of probabilities",
    ),
    (
        "classes-sum",
        lambda: assert_calibrated([0, 1] * 50, THREE * 1.5),
        BadArgument,
        "must sum to 1",
    ),
    ("classes-one", lambda: assert_calibrated([1] * 100, THREE), Inconclusive, "have one class"),
    (
        "classes-one-column",
        lambda: assert_calibrated([0] * 100, np.ones((100, 1))),
        BadArgument,
        "a column for each class",
    ),
    (
        "calibration-unclear",
        lambda: assert_calibrated(RIGHT, [0.5] * 100, at_most=0.01),
        Inconclusive,
        "samples would",
    ),
    (
        "confident-few",
        lambda: assert_not_overconfident(RIGHT[:9], HALVES[:9]),
        Inconclusive,
        "too few to judge confidence",
    ),
    (
        "slices-lengths",
        lambda: assert_no_weak_slice(RIGHT, {"a": RIGHT[1:]}, margin=1),
        BadArgument,
        "99 rows, but there are 100 scores",
    ),
    (
        "slices-nan",
        lambda: assert_no_weak_slice([NAN] * 100, {"a": RIGHT}, margin=1),
        BadArgument,
        "must be finite",
    ),
    (
        "slices-no-columns",
        lambda: assert_no_weak_slice(RIGHT, {}, margin=1),
        BadArgument,
        "one column or more",
    ),
    (
        "slices-constant",
        lambda: assert_no_weak_slice(RIGHT, {"a": [1] * 100}, margin=1),
        Inconclusive,
        "no slice of 100 rows",
    ),
    (
        "slices-small",
        lambda: assert_no_weak_slice(RIGHT, {"a": RIGHT}, margin=1, min_size=60),
        Inconclusive,
        "smaller min_size",
    ),
    (
        "slices-1d",
        lambda: assert_no_weak_slice(RIGHT, RIGHT, margin=1),
        BadArgument,
        "a dict of columns",
    ),
    (
        "slices-margin",
        lambda: assert_no_weak_slice(RIGHT, {"a": RIGHT}, margin=NAN),
        BadArgument,
        "margin must be 0 or more",
    ),
    (
        "slices-unclear",
        lambda: assert_no_weak_slice([1, 1, 0, 1] * 50, {"a": RIGHT * 2}, margin=0.5),
        Inconclusive,
        "may be worse",
    ),
    (
        "sequential-few",
        lambda: assert_not_worse(EIGHT[:3], EIGHT[:3], margin=0.1, sequential=True),
        Inconclusive,
        "At least 2 more pairs",
    ),
    (
        "sequential-none",
        lambda: assert_not_worse([], [], margin=0.1, sequential=True),
        Inconclusive,
        "At least 5 more pairs",
    ),
    (
        "sequential-unpaired",
        lambda: assert_not_worse(EIGHT, EIGHT, margin=0.1, sequential=True, paired=False),
        BadArgument,
        "needs pairs",
    ),
    ("no-bound", lambda: assert_converged([1.0] * 40), BadArgument, "it cannot fail"),
    (
        "settled-short",
        lambda: assert_converged([1.0] * 9, settled=0.1),
        BadArgument,
        "at least 30 losses",
    ),
    (
        "state-nan",
        lambda: assert_converged([0.5], below=1, state={"w": np.array([NAN])}),
        NotConverged,
        "w: 1 value",
    ),
]
DRIFT = [
    ("drift-nan-only", lambda: drifts(current=np.full(100, NAN)), Drifted, "100 NaN or missing"),
    ("drift-nan-reference", lambda: drifts([NAN] * 9), BadArgument, "9 NaN or missing among 9"),
    ("drift-empty", lambda: drifts(current=[]), Drifted, "it is empty"),
    ("drift-empty-reference", lambda: drifts([]), BadArgument, "is empty"),
    ("drift-infinite", lambda: drifts(current=[INF] * 9), Drifted, "9 infinite among 9"),
    ("drift-constant", lambda: drifts(current=np.ones(100)), Drifted, "is constant"),
    ("drift-constant-reference", lambda: drifts(np.ones(100)), BadArgument, "is constant"),
    ("drift-one-value", lambda: drifts([1.0]), BadArgument, "is constant: 1 times"),
    ("drift-two-values", lambda: drifts([1.0, 2.0]), BadArgument, "too few to show a drift"),
    ("drift-one-word", lambda: drifts(WORDS, ["yes"] * 9), Drifted, "the same category"),
    ("drift-kinds", lambda: drifts(current=WORDS), Drifted, "holds categories, but the reference"),
    ("drift-mixed", lambda: drifts(WORDS, [*WORDS, 1]), Drifted, "mixes numbers"),
    ("drift-mixed-times", lambda: drifts(TIMES, [*TIMES.tolist(), 1]), Drifted, "mixes numbers"),
    ("drift-nat", lambda: drifts(TIMES, TIMES[:0]), Drifted, "it is empty"),
    ("drift-none", lambda: drifts(current=None), Drifted, "got NoneType"),
    ("drift-text", lambda: drifts("abc"), BadArgument, "got str"),
    ("drift-complex", lambda: drifts([1j, 2j]), BadArgument, "dtype complex128"),
    ("drift-ragged", lambda: drifts([[1, 2], [3]]), BadArgument, "whose rows differ"),
    ("drift-three-axes", lambda: drifts(np.zeros((2, 2, 2))), BadArgument, "got 3 dimensions"),
    ("drift-no-columns", lambda: drifts({}), BadArgument, "a table without columns"),
    ("drift-lengths", lambda: drifts({"a": [1], "b": [1, 2]}), BadArgument, "of one length"),
    ("drift-column-gone", lambda: drifts({"a": HUNDRED}, {}), Drifted, "a table without columns"),
    ("drift-table", lambda: drifts(PLANE, HUNDRED), Drifted, "is a single column, but"),
    ("drift-user-names", lambda: drifts([*map(str, range(99))]), BadArgument, "too many to be"),
    (
        "drift-compare-nan-only",
        lambda: drifts(current=[NAN] * 9, missing="compare"),
        Drifted,
        "nothing but missing values: 9",
    ),
    *(
        (f"drift-{method}-{name}", call, error, message)
        for method in ("mmd", "c2st", "energy")
        for name, call, error, message in [
            ("nan", lambda m=method: drifts(PLANE, PLANE * NAN, method=m), Drifted, "100 NaN"),
            (
                "infinite",
                lambda m=method: drifts(PLANE, PLANE + INF, method=m),
                Drifted,
                "infinite",
            ),
            ("constant", lambda m=method: drifts(PLANE, PLANE * 0, method=m), Drifted, "constant"),
            ("few", lambda m=method: drifts(PLANE[:2], PLANE, method=m), BadArgument, "too few"),
            ("gone", lambda m=method: drifts(PLANE, PLANE[:, :2], method=m), Drifted, "is missing"),
        ]
    ),
    (
        "drift-dimensions",
        lambda: drifts(PLANE, PLANE[:, :2], kind="embeddings"),
        Drifted,
        "has 2 dimensions instead of 3",
    ),
    (
        "drift-not-embeddings",
        lambda: drifts(PLANE, HUNDRED, kind="embeddings"),
        Drifted,
        "must be rows of numbers",
    ),
    (
        "drift-not-probabilities",
        lambda: drifts(SHARES, SHARES * 2, kind="probabilities"),
        Drifted,
        "do not add up to 1",
    ),
    (
        "drift-one-class",
        lambda: drifts(SHARES[:, :1] * 4, kind="probabilities"),
        BadArgument,
        "two or more classes",
    ),
    (
        "drift-embed-short",
        lambda: drifts(WORDS, WORDS, embed=lambda texts: np.zeros((3, 2))),
        BadArgument,
        "a vector for each of 100 texts",
    ),
    (
        "drift-embed-nan",
        lambda: drifts(WORDS, WORDS, embed=lambda texts: np.full((100, 2), NAN)),
        BadArgument,
        "embed= returned NaN for 100 texts",
    ),
    (
        "drift-slices-small",
        lambda: drifts(slices=(range(100), range(100))),
        BadArgument,
        "no group with 20 rows",
    ),
    (
        "drift-slices-gone",
        lambda: drifts(slices=(WORDS, range(100))),
        Inconclusive,
        "Give more rows",
    ),
    ("drift-slices-length", lambda: drifts(slices=(WORDS, WORDS[:9])), BadArgument, "100 rows"),
    ("text-none", lambda: assert_no_text_drift(WORDS, []), Drifted, "current has no texts"),
    ("text-numbers", lambda: assert_no_text_drift(WORDS, [1]), Drifted, "1 of 1 values are not"),
    ("text-one", lambda: assert_no_text_drift(["a"], WORDS), BadArgument, "is too small"),
    ("text-empty", lambda: assert_no_text_drift(WORDS, [""] * 99), Drifted, "empty: 100.0%"),
    ("stream-none", lambda: streams(), Inconclusive, "cannot show any drift"),
    ("stream-short", lambda: streams([0.5]), Inconclusive, "Give 5 rows or more"),
    ("stream-empty", lambda: streams([]), Drifted, "is empty"),
    ("stream-nan", lambda: streams(HUNDRED[::9], [NAN]), Drifted, "batch 2 cannot be judged"),
    ("stream-reference", lambda: streams(reference=HUNDRED[:9]), BadArgument, "fewer than 50"),
    ("stream-constant", lambda: streams(reference=np.ones(99)), BadArgument, "is constant"),
]
LABELS = [0, 1] * 20
AB = ["a", "a", "b", "b"] * 10


def fair(y_true=LABELS, y_pred=LABELS, groups=AB, **keywords):
    """Judge fairness with a limit, unless the row gives another argument."""
    return assert_fair(y_true, y_pred, groups, **{"at_most": 0.1, "metric": "accuracy", **keywords})


def amplified(golden=LABELS, chaos=LABELS, groups=AB, **keywords):
    """Judge the harm of a fault."""
    return assert_no_bias_amplification(golden, chaos, groups, **{"at_most": 0.1, **keywords})


FAIRNESS = [
    ("fair-lengths", lambda: fair(y_pred=LABELS[:-1]), BadArgument, "each of the 40 samples"),
    ("fair-group-lengths", lambda: fair(groups=AB[:-1]), BadArgument, "got 39"),
    ("fair-empty", lambda: fair([], [], []), BadArgument, "y_true is empty"),
    ("fair-none", lambda: fair(y_true=None), BadArgument, "y_true must have one value"),
    ("fair-text", lambda: fair(groups="abab"), BadArgument, "groups must have one value"),
    ("fair-nan-label", lambda: fair([NAN, *LABELS[1:]]), BadArgument, "1 missing values"),
    ("fair-nan-group", lambda: fair(groups=[NAN, *AB[1:]]), BadArgument, "mixes"),
    ("fair-none-group", lambda: fair(groups=[None, *AB[1:]]), BadArgument, "position 0"),
    ("fair-mixed", lambda: fair(["1", *LABELS[1:]]), BadArgument, "mixes texts and numbers"),
    ("fair-types", lambda: fair([*map(str, LABELS)]), BadArgument, "labels of one type"),
    ("fair-one-group", lambda: fair(groups=["a"] * 40), BadArgument, "nothing to compare"),
    (
        "fair-2001-groups",
        lambda: assert_fair(None, [0, 1] * 1001, range(2002), at_most=0.1),
        BadArgument,
        "2,002 different values",
    ),
    ("fair-two-axes", lambda: fair(np.zeros((40, 2))), BadArgument, "the shape (40, 2)"),
    ("fair-no-limit", lambda: fair(at_most=None), BadArgument, "give at_most="),
    ("fair-two-limits", lambda: fair(at_least=0.8), BadArgument, "one of the two"),
    ("fair-limit-one", lambda: fair(at_most=1.0), BadArgument, "from 0 to below 1"),
    ("fair-limit-nan", lambda: fair(at_most=NAN), BadArgument, "at_most must be"),
    ("fair-confidence", lambda: fair(confidence=1.0), BadArgument, "confidence must be"),
    ("fair-metric", lambda: fair(metric="parity"), BadArgument, "metric must be one of"),
    (
        "fair-scores",
        lambda: fair(y_pred=HUNDRED[:40], metric="equal_opportunity"),
        BadArgument,
        "y_pred holds scores",
    ),
    (
        "fair-classes",
        lambda: fair([0, 1, 2, 3] * 10, metric="equalized_odds"),
        BadArgument,
        "positive=",
    ),
    (
        "fair-positive",
        lambda: fair(metric="equalized_odds", positive="yes"),
        BadArgument,
        "no label equals",
    ),
    (
        "fair-one-class",
        lambda: fair([0] * 40, [0] * 40, metric="equal_opportunity"),
        Inconclusive,
        "'a' has 0",
    ),
    (
        "fair-group-of-one",
        lambda: fair(groups=["c", *AB[1:]], at_most=0.5),
        Inconclusive,
        "'c' has 1",
    ),
    ("fair-few", lambda: fair(), Inconclusive, "'a' has 20, 'b' has 20"),
    (
        "fair-probabilities",
        lambda: fair(y_pred=[2.0] * 40, metric="calibration"),
        BadArgument,
        "probabilities from 0 to 1",
    ),
    (
        "fair-infinite",
        lambda: fair(y_pred=[INF] * 40, metric="absolute_error"),
        BadArgument,
        "finite numbers",
    ),
    (
        "fair-few-errors",
        lambda: fair(groups=["a"] * 35 + ["b"] * 5, metric="absolute_error"),
        Inconclusive,
        "'b' has 5",
    ),
    (
        "fair-own-raises",
        lambda: fair(metric=lambda y, p: 1 / 0),
        BadArgument,
        "metric= raised ZeroDivisionError",
    ),
    (
        "fair-ratio-of-zero",
        lambda: fair([0] * 40, [1] * 40, at_most=None, at_least=0.8),
        Inconclusive,
        "smallest ratio",
    ),
    ("bias-lengths", lambda: amplified(chaos=LABELS[:-1]), BadArgument, "Give None for a sample"),
    ("bias-one-group", lambda: amplified(groups=["a"] * 40), BadArgument, "nothing to compare"),
    ("bias-few", lambda: amplified(), Inconclusive, "'a' has 20, 'b' has 20"),
    ("bias-limit", lambda: amplified(at_most=-1), BadArgument, "a number of 0 or more"),
    ("bias-nan-golden", lambda: amplified([NAN] * 40), BadArgument, "40 missing values"),
    ("bias-types", lambda: amplified(chaos=[*map(str, LABELS)]), BadArgument, "labels of one type"),
    (
        "bias-loss-nan",
        lambda: amplified(loss=lambda y, p: [NAN] * 40),
        BadArgument,
        "the result of loss=",
    ),
]
NOISE = np.random.default_rng(0).normal(size=400)
TWO = NOISE.reshape(200, 2)
TEXTS = [f"code {number}" for number in range(40)]


def member(members=NOISE[:200], others=NOISE[200:], **keywords):
    """Attack the membership by scores."""
    return assert_no_membership_leak(members, others, **keywords)


def steal(model=lambda records: records[:, 0] > 0, queries=TWO, holdout=TWO, **keywords):
    """Steal a model."""
    return assert_no_extraction(model, queries, holdout, **{"at_most": 0.9, **keywords})


def invert(found=TWO[:50], private=TWO[50:100], public=TWO[100:150], **keywords):
    """Judge reconstructions."""
    return assert_no_inversion(found, private, public, **keywords)


def canary(canaries=TEXTS[:1], references=TEXTS[1:], **keywords):
    """Judge the loss of canaries."""
    return assert_no_memorised_canaries(
        canaries, references, **{"loss": lambda texts: NOISE[: len(texts)], **keywords}
    )


PRIVACY = [
    ("member-few", lambda: member(NOISE[:9]), BadArgument, "at least 10 records"),
    ("member-empty", lambda: member([]), BadArgument, "the shape (0,)"),
    ("member-nan", lambda: member([NAN] * 20), BadArgument, "20 values that are NaN"),
    ("member-text", lambda: member(["a"] * 20), BadArgument, "one number for each"),
    ("member-vectors", lambda: member(TWO), BadArgument, "the shape (200, 2)"),
    ("member-no-limit", lambda: member(at_most=None, tpr_at_most=None), BadArgument, "give"),
    ("member-fpr-0", lambda: member(fpr=0.0), BadArgument, "fpr must be above 0"),
    ("member-tpr", lambda: member(tpr_at_most=0.001), BadArgument, "a guess reaches that"),
    ("member-few-for-fpr", lambda: member(at_most=None), Inconclusive, "records of each kind"),
    ("member-same", lambda: member([1.0] * 20, [1.0] * 20), Inconclusive, "neither a leak"),
    ("member-score", lambda: member(score=lambda r: 1 / 0), BadArgument, "score raised"),
    (
        "steal-refused",
        lambda: steal(lambda r: None, truth=lambda r: r[:, 0] > 0),
        Inconclusive,
        "none of",
    ),
    ("steal-refused-holdout", lambda: steal(lambda r: [None] * len(r)), Inconclusive, "none of"),
    ("steal-constant", lambda: steal(lambda r: np.zeros(len(r))), BadArgument, "most frequent"),
    ("steal-scores", lambda: steal(lambda r: r[:, 0]), BadArgument, "single scores"),
    ("steal-lengths", lambda: steal(lambda r: [1]), BadArgument, "one answer for each"),
    ("steal-widths", lambda: steal(holdout=NOISE), BadArgument, "2 numbers for each"),
    ("steal-holdout", lambda: steal(holdout=TWO[:5]), BadArgument, "at least 20"),
    (
        "steal-few-queries",
        lambda: steal(lambda r: (r**2).sum(1) > 1, TWO[:4], at_most=0.95),
        Inconclusive,
        "",
    ),
    ("invert-empty", lambda: invert(np.zeros((0, 2))), BadArgument, "at least one record"),
    ("invert-widths", lambda: invert(private=NOISE), BadArgument, "2 numbers for each"),
    ("invert-nan", lambda: invert(np.full((5, 2), NAN)), BadArgument, "NaN or infinite"),
    ("invert-few", lambda: invert(TWO[:5]), Inconclusive, "reconstructions"),
    ("invert-room", lambda: invert(public=TWO[:1]), BadArgument, "more records"),
    (
        "invert-same",
        lambda: invert(np.tile(TWO[:50], (8, 1)), TWO, TWO),
        Inconclusive,
        "shows neither a leak",
    ),
    ("canary-none", lambda: canary([]), BadArgument, "canaries is empty"),
    ("canary-loss", lambda: canary(loss=None), BadArgument, "give loss="),
    ("canary-few", lambda: canary(references=TEXTS[1:10]), Inconclusive, "at least 19"),
    ("canary-both", lambda: canary(references=TEXTS), BadArgument, "different texts"),
    (
        "canary-lengths",
        lambda: canary(loss=lambda t: [1.0]),
        BadArgument,
        "one number for each text",
    ),
    ("canary-nan", lambda: canary(loss=lambda t: [NAN] * len(t)), BadArgument, "NaN or infinite"),
    (
        "canary-equal",
        lambda: canary(loss=lambda t: [1.0] * len(t)),
        Inconclusive,
        "ranks say nothing",
    ),
    ("canary-generated", lambda: canary(loss=None, generated=[]), BadArgument, "no texts"),
    ("canary-text", lambda: canary([3]), BadArgument, "must be texts"),
]


def alert(function=None, log=None, warning=None, raises=None, site=None):
    """An alert as ``mlchaos.watch`` reads it, in a test that declares no fault."""
    return make_alert(function, log, warning, raises, site, frozenset())


def levels(**keywords):
    """The levels of a fault."""
    faults.load()
    return Levels.of("corrupt_batch", keywords)


def broken(lowest=3, highest=5, baseline=None):
    """A breaking point between these numbers of survived levels, out of 10."""
    found = Found("train", "f", "share", range(1, 11), lowest, highest, lowest, 0.95, ())
    return BreakingPoint(found, Baselines(Path("/nowhere/baselines.json"), "test"))


def rule(text, name="A", **keywords):
    """A rule file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.yml")
        path.write_text(text)
        how = {"interval": "15s", "labels": None, "requests": "r", "duration": "d", **keywords}
        return AlertRule.of(name, path, *how.values())


def baselines(text):
    """Read a damaged file of baselines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "baselines.json")
        path.write_text(text)
        return Baselines(path, "test").read("train", "f")


RULE = "groups: [{name: g, rules: [{alert: A, expr: vector(1)}]}]"
WATCH = [
    ("alert-none", lambda: alert(), BadArgument, "exactly one of"),
    ("alert-two", lambda: alert(len, log="x"), BadArgument, "exactly one of"),
    ("alert-number", lambda: alert(3), BadArgument, "alert must be a function"),
    ("alert-class", lambda: alert(dict), BadArgument, "alert must be a function"),
    ("alert-arguments", lambda: alert(lambda a, b: 0), BadArgument, "of one argument"),
    ("alert-no-site", lambda: alert(lambda a: 0), BadArgument, "site must be given"),
    (
        "alert-site",
        lambda: alert(lambda: 0, site="data.batch"),
        BadArgument,
        "with a function of one argument",
    ),
    ("log-pattern", lambda: alert(log="("), BadArgument, "a regular expression"),
    ("log-empty", lambda: alert(log=""), BadArgument, "a regular expression"),
    ("log-bytes", lambda: alert(log=re.compile(b"x")), BadArgument, "a regular expression"),
    ("warning-class", lambda: alert(warning=ValueError), BadArgument, "a regular expression"),
    ("raises-text", lambda: alert(raises="ValueError"), BadArgument, "an exception class"),
    ("raises-empty", lambda: alert(raises=()), BadArgument, "an exception class"),
    ("within-float", lambda: _parse_within(1.5), BadArgument, "a number of visits"),
    ("within-bool", lambda: _parse_within(True), BadArgument, "a number of visits"),
    ("within-unit", lambda: _parse_within("5 parsecs"), BadArgument, "must be in seconds"),
    ("rule-name", lambda: rule(RULE, "B"), BadArgument, "must be in rules.yml"),
    ("rule-part", lambda: rule(RULE.replace("A,", "AB,")), BadArgument, "must be in rules.yml"),
    ("rule-empty", lambda: rule(""), BadArgument, "must be in rules.yml"),
    ("rule-interval", lambda: rule(RULE, interval=0), BadArgument, "longer than 0 s"),
    ("rule-label", lambda: rule(RULE, labels={"a b": "c"}), BadArgument, "a label must have"),
    ("rule-metric", lambda: rule(RULE, requests="a b"), BadArgument, "a metric must have"),
]
BREAKING = [
    ("scale-equal", lambda: chaos.scale(1, 1), BadArgument, "two different numbers"),
    ("scale-nan", lambda: chaos.scale(0, NAN), BadArgument, "two different numbers"),
    ("scale-inf", lambda: chaos.scale(0, INF), BadArgument, "two different numbers"),
    ("scale-text", lambda: chaos.scale("0", 1), BadArgument, "two different numbers"),
    ("scale-steps", lambda: chaos.scale(0, 1, steps=1), BadArgument, "steps must be"),
    ("scale-long", lambda: chaos.scale(0, 10**6), BadArgument, "whole numbers"),
    ("levels-none", lambda: levels(at=0), BadArgument, "exactly one parameter"),
    (
        "levels-two",
        lambda: levels(fraction=chaos.scale(0, 1), magnitude=chaos.scale(0, 1)),
        BadArgument,
        "exactly one parameter",
    ),
    (
        "levels-refused",
        lambda: levels(fraction=chaos.scale(0, 2)),
        BadArgument,
        "fraction must be above 0",
    ),
    (
        "levels-open",
        lambda: levels(fraction=chaos.scale(0, 1), kind=chaos.one_of("nan", "inf")),
        BadArgument,
        "nothing to a search",
    ),
    ("survives-broken", lambda: broken().assert_survives(6), Worse, "must survive share=6"),
    ("survives-inside", lambda: broken().assert_survives(4), Inconclusive, "not known"),
    ("survives-unknown", lambda: broken(0, 10).assert_survives(1), Inconclusive, "anywhere"),
    ("survives-nan", lambda: broken().assert_survives(NAN), BadArgument, "a finite number"),
    ("no-baseline", lambda: broken().assert_no_regression(), Inconclusive, "is missing in"),
    ("baseline-text", lambda: baselines("no"), BadArgument, "not a file of baselines"),
    ("baseline-list", lambda: baselines("[]"), BadArgument, "not a file of baselines"),
    (
        "baseline-version",
        lambda: baselines('{"version": 9, "breaking_points": {}}'),
        BadArgument,
        "must have version 1",
    ),
    (
        "baseline-entry",
        lambda: baselines('{"version": 1, "breaking_points": {"test: train": {"low": 1}}}'),
        BadArgument,
        "is damaged",
    ),
    (
        "baseline-fault",
        lambda: baselines(
            '{"version": 1, "breaking_points": {"test: train": {"fault": "g", "low": 1, "high": 2}}}'
        ),
        BadArgument,
        "is that of g, and this is f",
    ),
]


def robust(model=lambda rows: (rows[:, 0] > 0.5).astype(int), rows=PLANE, labels=None, **keywords):
    """Judge a classifier under attack."""
    labels = (rows[:, 0] > 0.5).astype(int) if labels is None else labels
    return assert_robust(model, rows, labels, **{"epsilon": 0.01, "at_least": 0.5, **keywords})


ROBUST = [
    ("robust-model", lambda: robust(model=3), BadArgument, "a torch module or a function"),
    ("robust-raises", lambda: robust(model=lambda rows: 1 / 0), BadArgument, "ZeroDivisionError"),
    ("robust-one", lambda: robust(model=lambda rows: 1), BadArgument, "one class for each"),
    ("robust-few", lambda: robust(model=lambda rows: rows[1:, 0] > 0), BadArgument, "one class"),
    ("robust-scores", lambda: robust(model=lambda rows: rows[:, 0]), BadArgument, "one class"),
    ("robust-none", lambda: robust(model=lambda rows: None), BadArgument, "one class"),
    ("robust-white", lambda: robust(method="pgd"), BadArgument, "needs a torch module"),
    ("robust-method", lambda: robust(method="cw"), BadArgument, "method must be"),
    ("robust-norm", lambda: robust(norm="1"), BadArgument, "norm must be"),
    ("robust-epsilon", lambda: robust(epsilon=0), BadArgument, "epsilon must be"),
    ("robust-epsilon-nan", lambda: robust(epsilon=NAN), BadArgument, "epsilon must be"),
    ("robust-queries", lambda: robust(queries=0), BadArgument, "queries must be 1"),
    ("robust-spent", lambda: robust(queries=1), Inconclusive, "planted weak model"),
    ("robust-tiny", lambda: robust(epsilon=1e-300), Inconclusive, "planted weak model"),
    ("robust-steps", lambda: robust(steps=5), BadArgument, "steps= needs method='pgd'"),
    ("robust-loss", lambda: robust(loss=len), BadArgument, "for an attack with gradients"),
    ("robust-clip", lambda: robust(clip=(0, 0.1)), BadArgument, "within clip=0, 0.1"),
    ("robust-clip-turned", lambda: robust(clip=(1, 0)), BadArgument, "clip must be"),
    ("robust-bound", lambda: robust(at_least=NAN), BadArgument, "at_least must be"),
    ("robust-sure", lambda: robust(confidence=1), BadArgument, "confidence must be"),
    ("robust-lengths", lambda: robust(labels=[0, 1]), BadArgument, "one length"),
    ("robust-empty", lambda: robust(rows=PLANE[:0]), BadArgument, "must not be empty"),
    ("robust-integers", lambda: robust(rows=PLANE.astype(int)), BadArgument, "array of floats"),
    ("robust-texts", lambda: robust(rows=np.array([["a"]]), labels=[0]), BadArgument, "of floats"),
    ("robust-nan", lambda: robust(rows=PLANE * NAN), BadArgument, "inputs must be finite"),
    ("robust-seed", lambda: robust(seed=0.5), BadArgument, "seed must be"),
    ("robust-few-samples", lambda: robust(rows=PLANE[:3], at_least=0.9), Inconclusive, "samples"),
    ("edges-none", lambda: chaos.edge_cases(None), BadArgument, "an example, a type or a table"),
    ("edges-empty", lambda: chaos.edge_cases({}), BadArgument, "at least one field"),
    ("edges-rows", lambda: chaos.edge_cases("a", rows=0), BadArgument, "rows must be from 1"),
    ("edges-type", lambda: chaos.edge_cases(set), BadArgument, "a type must be one of"),
    ("edges-odd", lambda: chaos.edge_cases({"a": object()}), BadArgument, "an example must be"),
]
ROWS = [*QUALITY, *METRICS, *DRIFT, *FAIRNESS, *PRIVACY, *WATCH, *BREAKING, *ROBUST]


@pytest.mark.parametrize(
    ("call", "error", "message"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_degenerate_input_never_passes(call, error, message):
    """The message says what is missing."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert message in str(caught.value)
