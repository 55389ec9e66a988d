"""Attacks on privacy: each finds a leak, spares what does not leak, and doubts what it cannot see."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_mlchaos import (
    assert_no_extraction,
    assert_no_inversion,
    assert_no_membership_leak,
    assert_no_memorised_canaries,
)
from pytest_mlchaos.errors import Inconclusive, Leaks
from pytest_mlchaos.oracles.privacy import inversion, membership
from pytest_mlchaos.oracles.privacy.canaries import _at_least

pytest.importorskip("scipy")


def outcome(call, *args, **keywords):
    """The name of the outcome, and the message."""
    try:
        call(*args, **keywords)
    except (Leaks, Inconclusive) as verdict:
        return type(verdict).__name__, str(verdict)
    return "passes", ""


def normal(n, mean=0.0, seed=0):
    """Normal numbers."""
    return np.random.default_rng(seed).normal(mean, 1, n)


# -- membership ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_membership_leak_is_found_in_both_directions(sign):
    """A lower loss gives members away as a higher confidence does."""
    verdict, text = outcome(
        assert_no_membership_leak, sign * normal(1000, 1.5), sign * normal(1000, seed=1)
    )
    assert verdict == "Leaks"
    assert "the advantage is 0.5" in text
    assert_no_membership_leak(sign * normal(6000), sign * normal(6000, seed=1))


def test_leak_of_few_records_shows_in_the_true_positive_rate():
    """The advantage hides that 8 % of the members are recognised for sure."""
    members = normal(4000)
    members[:320] += 50
    verdict, text = outcome(assert_no_membership_leak, members, normal(4000, seed=1), at_most=0.2)
    assert verdict == "Leaks"
    assert "the advantage" not in text
    assert "true positive rate at a false positive rate of 0.01" in text


def test_few_records_are_inconclusive():
    """100 records cannot show what happens at a false positive rate of 1 %."""
    verdict, text = outcome(
        assert_no_membership_leak, normal(100), normal(100, seed=1), at_most=None
    )
    assert verdict == "Inconclusive"
    assert "records of each kind would probably do" in text


def test_attack_that_misses_a_planted_leak_says_nothing(monkeypatch):
    """A blind attack does not make a model pass."""
    monkeypatch.setattr(membership, "_best_threshold", lambda inside, outside: (math.inf, 1))
    verdict, text = outcome(
        assert_no_membership_leak, normal(4000), normal(4000, seed=1), tpr_at_most=None
    )
    assert verdict == "Inconclusive"
    assert "planted" in text


def test_bounds_of_the_true_positive_rate_cover_it():
    """The bounds fail in at most 5 % of the cases, also for tied scores."""
    rng = np.random.default_rng(0)
    for decimals, truth in ((9, 0.0918), (0, None)):
        low = high = 0
        for _ in range(200):
            inside, outside = (
                rng.normal(1, 1, 800).round(decimals),
                rng.normal(0, 1, 800).round(decimals),
            )
            found = membership.tpr_of(inside, outside, 0.01, 0.95)
            # Rounded to whole numbers, a threshold above 2 has a false positive rate of 0.6 %.
            low += found.low > (truth or 0.0668)
            high += found.high < (truth or 0.0668)
        assert low <= 18
        assert high <= 18


# -- extraction ------------------------------------------------------------------------------------

QUERIES = np.random.default_rng(3).normal(size=(900, 4))


def ring(records):
    """A model that is not linear."""
    return ((records**2).sum(1) > 3.5).astype(int)


def test_model_without_a_limit_is_stolen():
    """A surrogate agrees with a model that answers all queries."""
    verdict, text = outcome(assert_no_extraction, ring, QUERIES[:500], QUERIES[500:], at_most=0.75)
    assert verdict == "Leaks"
    assert "500 answers of 500 queries" in text


def slope(records):
    """A linear model."""
    return (records @ [1.0, -1.0, 0.5, 2.0] > 0).astype(int)


def test_rate_limit_saves_the_model_unless_it_fails_open():
    """Refusals leave the surrogate with few answers."""

    class Limited:
        def __init__(self, quota):
            self.left = quota

        def __call__(self, records):
            self.left -= len(records)
            if self.left < 0:
                raise PermissionError("too many requests")
            return slope(records)

    arguments = {"holdout": QUERIES[500:], "at_most": 0.92, "truth": slope, "batch": 10}
    assert_no_extraction(Limited(10), QUERIES[:500], **arguments)
    assert outcome(assert_no_extraction, Limited(10**9), QUERIES[:500], **arguments)[0] == "Leaks"


def test_attack_that_cannot_steal_a_linear_model_says_nothing():
    """Six queries are not enough for the control."""
    verdict, text = outcome(assert_no_extraction, ring, QUERIES[:6], QUERIES[500:], at_most=0.88)
    assert verdict == "Inconclusive"
    assert "does not steal a linear classifier" in text


# -- inversion -------------------------------------------------------------------------------------


def test_reconstructions_near_private_records_are_a_leak():
    """Noisy copies are found, and new records of the same distribution are not."""
    records = np.random.default_rng(4).normal(size=(1200, 6))
    private, public, new = records[:400], records[400:800], records[800:]
    noisy = private + 0.3 * np.random.default_rng(5).normal(size=private.shape)
    assert outcome(assert_no_inversion, noisy, private, public)[0] == "Leaks"
    assert_no_inversion(new, private, public)


def test_inversion_without_a_control_says_nothing(monkeypatch):
    """If planted records are not recognised, reconstructions do not pass."""
    records = np.random.default_rng(4).normal(size=(1200, 6))
    monkeypatch.setattr(inversion, "PLANTED_NOISE", 1e6)
    verdict, _ = outcome(assert_no_inversion, records[:400], records[400:800], records[800:])
    assert verdict == "Inconclusive"


# -- canaries --------------------------------------------------------------------------------------

TEXTS = [f"my code is {number:06d}" for number in range(1001)]


def test_memorised_canary_has_the_exposure_of_its_rank():
    """The p-value is exact: one of 1,001 texts has rank 1 with probability 1/1001."""
    losses = np.linspace(1, 2, 1001)
    verdict, text = outcome(
        assert_no_memorised_canaries, TEXTS[:1], TEXTS[1:], loss=lambda texts: losses
    )
    assert verdict == "Leaks"
    assert f"exposure {math.log2(1001):.3g} bits, p = 0.001" in text
    for rank, expected in ((500, "passes"), (56, "Inconclusive")):
        moved = losses.copy()
        moved[0] = losses[rank] + 1e-6
        found = outcome(
            assert_no_memorised_canaries, TEXTS[:1], TEXTS[1:], loss=lambda texts, m=moved: m
        )
        assert found[0] == expected


def test_generated_canary_is_a_leak():
    """Case and white space do not hide a canary."""
    generated = ["Sure! MY CODE\n is 000000.", "Hello"]
    verdict, text = outcome(assert_no_memorised_canaries, TEXTS[:1], TEXTS[1:], generated=generated)
    assert verdict == "Leaks"
    assert "1 of 1 canaries" in text
    assert_no_memorised_canaries(TEXTS[:1], TEXTS[1:], generated=["Hello"])


def test_p_value_of_generated_texts_is_that_of_fisher():
    """The exact test agrees with SciPy."""
    stats = pytest.importorskip("scipy.stats")
    expected = stats.fisher_exact([[2, 3], [1, 14]], alternative="greater").pvalue
    assert _at_least(2, 1, 5, 15) == pytest.approx(expected)
