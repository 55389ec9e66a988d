"""``assert_fair`` and ``assert_no_bias_amplification``: definitions, verdicts and error rates."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pytest_mlchaos import assert_fair, assert_no_bias_amplification
from pytest_mlchaos.errors import Inconclusive, Unfair
from pytest_mlchaos.oracles.fairness import fair, gaps
from pytest_mlchaos.oracles.fairness.columns import read_groups

pytest.importorskip("scipy")


def outcome(call, *args, **keywords):
    """The name of the outcome, and the message."""
    try:
        call(*args, **keywords)
    except (Unfair, Inconclusive) as verdict:
        return type(verdict).__name__, str(verdict)
    return "passes", ""


def sample(n=4000, seed=0):
    """Labels, predictions that are worse for group b, and three groups."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(["a", "b", "c"], n, p=(0.5, 0.3, 0.2))
    true = rng.integers(0, 2, n)
    wrong = rng.random(n) < np.where(groups == "b", 0.4, 0.1)
    return true, np.where(wrong, 1 - true, true), groups


def gap(metric, true, predicted, groups, *, ratio=False):
    """The estimate of the gap."""
    measures, _ = fair._measures(true, predicted, groups, metric, None, 5)
    return (gaps.smallest_ratio if ratio else gaps.largest_difference)(measures, 0.95).estimate


# -- the tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["difference", "ratio"])
@pytest.mark.parametrize("metric", ["demographic_parity", "equalized_odds", "equal_opportunity"])
def test_gap_equals_that_of_fairlearn(metric, kind):
    """The definitions are those of fairlearn."""
    peer = pytest.importorskip("fairlearn.metrics")
    true, predicted, groups = sample()
    expected = getattr(peer, f"{metric}_{kind}")(true, predicted, sensitive_features=groups)
    found = gap(metric, true, predicted, groups, ratio=kind == "ratio")
    assert found == pytest.approx(expected, abs=1e-6)


def test_accuracy_gap_equals_that_of_fairlearn_at_intersections():
    """Several columns give their intersections, as in fairlearn's MetricFrame."""
    peer = pytest.importorskip("fairlearn.metrics")
    metrics = pytest.importorskip("sklearn.metrics")
    pandas = pytest.importorskip("pandas")
    true, predicted, groups = sample()
    table = pandas.DataFrame({"group": groups, "half": np.arange(len(true)) % 2})
    frame = peer.MetricFrame(
        metrics=metrics.accuracy_score, y_true=true, y_pred=predicted, sensitive_features=table
    )
    assert gap("accuracy", true, predicted, table) == pytest.approx(frame.difference())
    assert gap("accuracy", true, predicted, table.to_dict("list")) == pytest.approx(
        frame.difference()
    )


def test_verdicts_for_a_clear_gap_a_clear_pass_and_doubt():
    """The same data are fair, unfair or undecided, as the limit asks."""
    data = sample()
    verdict, text = outcome(assert_fair, *data, metric="accuracy", at_most=0.1)
    assert verdict == "Unfair"
    assert re.search(r"accuracy is 0\.9\d* for '[ac]' .* and 0\.\d+ for 'b'", text)
    assert outcome(assert_fair, *data, metric="accuracy", at_most=0.45)[0] == "passes"
    assert outcome(assert_fair, *data, metric="accuracy", at_most=0.3)[0] == "Inconclusive"


def test_small_group_is_inconclusive_and_named():
    """A model that is right for everybody is not shown to be fair to a group of five."""
    true = np.arange(2005) % 2
    groups = np.array(["rest"] * 2000 + ["few"] * 5)
    verdict, text = outcome(assert_fair, true, true, groups, metric="accuracy", at_most=0.1)
    assert verdict == "Inconclusive"
    assert "'few' has 5" in text
    assert "'rest' has" not in text
    needed = int(re.search(r"About ([\d,]+) in each group", text)[1].replace(",", ""))
    more = np.array(["rest"] * 2000 + ["few"] * needed)
    true = np.arange(len(more)) % 2
    assert_fair(true, true, more, metric="accuracy", at_most=0.1)


def test_four_fifths_rule():
    """A ratio of 0.5 breaks it, and one of 1 does not."""
    groups = np.arange(4000) % 2
    half = (np.arange(4000) // 2 % 4 == 0) | ((groups == 1) & (np.arange(4000) // 2 % 4 == 1))
    verdict, text = outcome(assert_fair, None, half, groups, at_least=0.8)
    assert verdict == "Unfair"
    assert "smallest ratio is 0.5 " in text
    assert_fair(None, np.arange(4000) // 2 % 2, groups, at_least=0.8)


def test_calibration_within_groups():
    """Scores that are too high for one group are found, although all are right on average."""
    rng = np.random.default_rng(1)
    groups = np.arange(20_000) % 2
    chance = rng.uniform(0.2, 0.8, len(groups))
    true = (rng.random(len(groups)) < chance).astype(int)
    moved = chance + 0.15 * np.where(groups == 1, 1, -1)
    assert_fair(true, chance, groups, metric="calibration", at_most=0.1)
    verdict, text = outcome(assert_fair, true, moved, groups, metric="calibration", at_most=0.1)
    assert verdict == "Unfair"
    assert "mean score" in text


def test_texts_as_labels_and_own_metric():
    """Labels of any type have a positive class. A function gives one number for each sample."""
    true, predicted, groups = sample()
    words = np.array(["no", "yes"])
    verdicts = {
        outcome(assert_fair, words[true], words[predicted], groups, positive="yes", **limit)[0]
        for limit in (
            {"metric": "equalized_odds", "at_most": 0.1},
            {"metric": "predictive_parity", "at_most": 0.1},
            {"metric": lambda y, p: (y != p) * 2.0, "at_most": 0.2},
        )
    }
    assert verdicts == {"Unfair"}


def test_group_codes_agree_for_all_types():
    """Texts, integers, floats, categories and objects give the same groups."""
    pandas = pytest.importorskip("pandas")
    words = np.array(["ba", "b", "", "abc", "ba"])
    numbers = np.array([3, 2, 0, 1, 3])
    for values in (
        words,
        words.astype(object),
        list(words),
        pandas.Series(words, dtype="category"),
        numbers,
        numbers * 1.5,
        numbers * 10**12,
    ):
        codes = read_groups(values, "test", 5).codes
        assert codes[0] == codes[4]
        assert len(set(codes[:4].tolist())) == 4


def test_fault_that_harms_one_group_is_unfair():
    """The difference in differences counts, not the gap before the fault."""
    true, golden, groups = sample(8000)
    rng = np.random.default_rng(2)
    hit = rng.random(len(true)) < 0.5
    alike = np.where(rng.random(len(true)) < 0.05, 1 - golden, golden)
    one = np.where(hit & (groups == "c"), 0, golden)
    assert_no_bias_amplification(golden, alike, groups, at_most=0.1, y_true=true)
    verdict, text = outcome(
        assert_no_bias_amplification, golden, one, groups, at_most=0.1, y_true=true
    )
    assert verdict == "Unfair"
    assert "for 'c'" in text
    lost = [
        None if group == "c" and strike else int(one_)
        for group, strike, one_ in zip(groups, hit, golden, strict=True)
    ]
    assert outcome(assert_no_bias_amplification, golden, lost, groups, at_most=0.1)[0] == "Unfair"


@pytest.mark.parametrize("scores", [False, True])
def test_error_rates_at_the_limit(scores):
    """A gap at its limit is called unfair in at most 5 % of the cases, and so is one that passes."""
    rng = np.random.default_rng(3)
    unfair = passed = 0
    for _ in range(300):
        groups = rng.integers(0, 2, 300)
        if scores:
            chance = rng.random(300)
            verdict = (
                gaps_of_scores((rng.random(300) < chance).astype(int), chance, groups)
            ).verdict(0.0, ratio=False)
        else:
            predicted = rng.random(300) < 0.3 + 0.1 * groups
            measures, _ = fair._measures(None, predicted, groups, "demographic_parity", None, 5)
            verdict = gaps.largest_difference(measures, 0.95).verdict(0.1, ratio=False)
        unfair += verdict == "unfair"
        passed += verdict == "fair"
    assert unfair <= 24
    assert passed <= 24


def gaps_of_scores(true, scores, groups):
    """The gap of calibration."""
    measures, _ = fair._measures(true, scores, groups, "calibration", None, 5)
    return fair._miscalibration(measures, 0.95)
