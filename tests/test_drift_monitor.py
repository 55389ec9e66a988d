"""``DriftMonitor``: it may be looked at after each batch, and keeps its false-alarm rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_mlchaos import DriftMonitor
from pytest_mlchaos.errors import BadArgument, Drifted, Inconclusive
from pytest_mlchaos.oracles.drift.evidence import BINS, PRIORS, Evidence, Ranks

WORDS = ["yes", "no", "no"]


def looks(monitor, batches):
    """Return the number of the batch that raised the alarm, or None."""
    for number, batch in enumerate(batches, start=1):
        if monitor.update(batch):
            return number
    return None


def test_ranks_of_new_values_count_all_values_before_them():
    """The position among the reference and the earlier values of the stream."""
    ranks = Ranks(np.array([1.0, 2.0, 3.0]), seed=0)
    found = ranks.next(np.array([0.5, 10.0, 2.5]))
    lows = np.array([0, 4, 3]) / np.array([4, 5, 6])
    assert ((found >= lows) & (found <= lows + 1 / np.array([4, 5, 6]))).all()
    assert Ranks(np.zeros(5), 0).next(np.zeros(9)).std() > 0.1  # ties are spread at random


def test_ranks_without_drift_are_uniform_even_with_ties():
    """Counts of 6,000 ranks in 8 bins."""
    rng = np.random.default_rng(0)
    found = Ranks(rng.poisson(1.0, 500), seed=1).next(rng.poisson(1.0, 6_000))
    counts = np.bincount((found * 8).astype(int), minlength=8)
    assert ((counts - 750) ** 2 / 750).sum() < 25  # beyond the 99.9 % quantile


def test_the_evidence_is_the_mixture_of_its_definition():
    """One batch, then two: bets from each batch on, and what is not bet yet."""

    def capital(counts):
        found = []
        for prior in PRIORS:
            log = sum(math.lgamma(prior + c) - math.lgamma(prior) for c in counts)
            total = sum(counts)
            log += math.lgamma(prior * BINS) - math.lgamma(prior * BINS + total)
            found.append(math.exp(log + total * math.log(BINS)))
        return sum(found) / len(found)

    evidence = Evidence()
    first, second = np.array([0.95] * 5 + [0.1]), np.array([0.95] * 3 + [0.5])
    evidence.add(first)
    one = [1, 0, 0, 0, 0, 0, 0, 5]
    assert math.exp(evidence.log_capital) == pytest.approx(capital(one) / 2 + 1 / 2)
    evidence.add(second)
    both, last = [1, 0, 0, 0, 1, 0, 0, 8], [0, 0, 0, 0, 1, 0, 0, 3]
    expected = capital(both) / 2 + capital(last) / 6 + 1 / 3
    assert math.exp(evidence.log_capital) == pytest.approx(expected)


@pytest.mark.parametrize("draw", ["normal", "counts", "words"])
def test_many_looks_without_drift_raise_few_alarms(draw):
    """15 looks at each of 30 streams: at most alpha, and three standard errors."""
    rng = np.random.default_rng(5)
    make = {
        "normal": lambda n: rng.normal(size=n),
        "counts": lambda n: rng.poisson(1.0, n),
        "words": lambda n: list(rng.choice(WORDS, n)),
    }[draw]
    alarms = [looks(DriftMonitor(make(100)), (make(20) for _ in range(15))) for _ in range(30)]
    rate = np.mean([alarm is not None for alarm in alarms])
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 30)


@pytest.mark.parametrize("begins", [0, 15])
def test_a_drift_is_found_soon_after_it_begins(begins):
    """One standard deviation, from the first batch or from the sixteenth on."""
    rng = np.random.default_rng(2)
    batches = (rng.normal(float(number >= begins), size=40) for number in range(begins + 10))
    monitor = DriftMonitor(rng.normal(size=300))
    assert begins < looks(monitor, batches) <= begins + 3
    with pytest.raises(Drifted, match="the column: evidence") as caught:
        monitor.assert_no_drift()
    assert f"since batch {begins + 1}, mean rank 0.7" in str(caught.value)


def test_new_shares_of_categories_are_found():
    """Also a category that the reference never had."""
    monitor = DriftMonitor(WORDS * 50)
    assert looks(monitor, [["yes", "maybe"] * 20] * 6) is not None
    with pytest.raises(Drifted) as caught:
        monitor.assert_no_drift()
    assert "maybe" not in str(caught.value)


def test_a_combination_that_no_column_shows_is_found_in_a_table():
    """Two columns lose their dependence."""
    rng = np.random.default_rng(3)
    one = rng.normal(size=300)
    monitor = DriftMonitor({"a": one, "b": one + 0.3 * rng.normal(size=300)})
    batches = ({"a": rng.normal(size=40), "b": 1.04 * rng.normal(size=40)} for _ in range(6))
    assert looks(monitor, batches) is not None
    with pytest.raises(Drifted, match="2 columns together, distance to the reference"):
        monitor.assert_no_drift()


def test_embeddings_are_watched_and_texts_by_an_embedding():
    """A mean that moved in all dimensions."""
    rng = np.random.default_rng(4)
    monitor = DriftMonitor(rng.normal(size=(300, 8)), kind="embeddings")
    assert not monitor.update(rng.normal(size=(30, 8)))
    assert looks(monitor, (rng.normal(0.8, size=(40, 8)) for _ in range(8))) is not None

    def embed(texts):
        return np.array([[len(text), text.count("e")] for text in texts], dtype=float)

    texts = DriftMonitor(["yes", "no", "never ever"] * 50, embed=embed)
    assert looks(texts, [["never ever"] * 20] * 10) is not None


def test_its_p_value_is_valid_at_any_time():
    """It is 1 at the start, never rises, and agrees with the alarm."""
    rng = np.random.default_rng(6)
    monitor, seen = DriftMonitor(rng.normal(size=200), alpha=0.01), [1.0]
    for _ in range(6):
        alarm = monitor.update(rng.normal(1.0, size=30))
        assert monitor.p <= seen[-1]
        assert alarm == (monitor.p <= 0.01)
        seen.append(monitor.p)
    assert monitor.drifted
    assert monitor.batches == 6


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([], "is empty"),
        ([1.0, math.nan], "has 1 NaN or missing among 2 values"),
        ([math.inf], "has 1 infinite among 1 value"),
        (["a"], "holds categories, but the reference holds numbers"),
        ({"x": [1.0]}, "its columns are not those of the reference"),
        (3, "must be an array, a list, a tensor or a table"),
    ],
)
def test_a_batch_that_cannot_be_judged_is_a_drift(batch, message):
    """It never passes."""
    monitor = DriftMonitor(np.arange(60.0))
    assert monitor.update(batch)
    with pytest.raises(Drifted, match="batch 1 cannot be judged") as caught:
        monitor.assert_no_drift()
    assert message in str(caught.value)


def test_too_few_rows_to_see_a_drift_are_inconclusive():
    """The message says how many would do, and with these an alarm is possible."""
    monitor = DriftMonitor(np.arange(500.0))
    with pytest.raises(Inconclusive, match="0 rows in 0 batches cannot show any drift"):
        monitor.assert_no_drift()
    monitor.update([250.0])
    with pytest.raises(Inconclusive, match="Give 5 rows or more"):
        monitor.assert_no_drift()
    monitor.update([900.0, 901.0, 902.0, 903.0, 904.0, 905.0])
    assert monitor.drifted


@pytest.mark.parametrize(
    ("reference", "keywords", "message"),
    [
        (np.arange(9.0), {}, "has 9 values, fewer than 50"),
        (np.zeros(60), {}, "is constant"),
        (np.append(np.arange(60.0), np.nan), {}, "has 1 NaN or missing"),
        (np.arange(60).astype("M8[s]"), {}, "holds times, which always move on"),
        (np.random.default_rng(0).normal(size=(60, 3)), {"kind": "embeddings"}, "fewer than 100"),
        (np.arange(60.0), {"alpha": 2}, "alpha must be between 0 and 1"),
        (np.arange(60.0), {"kind": "text"}, "kind must be None or 'embeddings'"),
    ],
)
def test_a_reference_of_no_use_is_refused(reference, keywords, message):
    """Nothing passes for want of a judgement."""
    with pytest.raises(BadArgument) as caught:
        DriftMonitor(reference, **keywords)
    assert message in str(caught.value)
