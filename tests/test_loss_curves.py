"""A curve of losses is read: its trend, its settling, and its way back into the golden band."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlchaos import assert_converged
from pytest_mlchaos.core.records import Attempt, Record
from pytest_mlchaos.errors import BadArgument, NotConverged
from pytest_mlchaos.oracles.quality.finite_values import first_not_finite
from pytest_mlchaos.oracles.quality.loss_curves import band_of, steps_to_recover, trend_text
from pytest_mlchaos.runs.verdicts import Run

STEPS = np.arange(200)
FALLING = np.exp(-STEPS / 40)


def noisy(curve, seed, size=0.02):
    """The curve with normal noise."""
    return curve + np.random.default_rng(seed).normal(scale=size, size=len(curve))


def test_a_curve_of_the_same_noise_stays_in_the_golden_band():
    """Hardly any of 60 curves leaves it, and neither does a curve without noise."""
    golden = noisy(FALLING, 0)
    left = sum(steps_to_recover(noisy(FALLING, seed), golden) != 0 for seed in range(1, 61))
    assert left <= 1
    assert steps_to_recover(FALLING, FALLING) == 0


@pytest.mark.parametrize("size", [0.0, 0.02])
@pytest.mark.parametrize("harmed", [10, 60])
def test_the_steps_outside_of_the_band_are_counted(size, harmed):
    """Up to the half window of the medians."""
    golden, found = noisy(FALLING, 0, size), noisy(FALLING, 1, size)
    found[50 : 50 + harmed] += 0.5
    assert steps_to_recover(found, golden) == pytest.approx(harmed, abs=4)


def test_a_curve_that_does_not_come_back_has_no_number():
    """Outside at the end, NaN, or back for fewer steps than the window."""
    golden = noisy(FALLING, 0)
    for harm in (slice(150, None), slice(150, 198)):
        found = noisy(FALLING, 1)
        found[harm] += 0.5
        assert steps_to_recover(found, golden) is None
    found[150:] = np.nan
    assert steps_to_recover(found, golden) is None


def test_single_spikes_and_lower_losses_are_inside():
    """A spike of one step, and a run that learns faster."""
    found = noisy(FALLING, 1)
    found[60] += 5
    assert steps_to_recover(found, noisy(FALLING, 0)) == 0
    assert steps_to_recover(FALLING * 0.5, FALLING) == 0
    assert (band_of(FALLING) > FALLING).all()


@pytest.mark.parametrize("size", [0.0, 0.01])
@pytest.mark.parametrize(
    ("curve", "text"),
    [
        (1 - STEPS / 200, "still falling"),
        (0.5 + np.exp(-STEPS / 8), "on a plateau since about step"),
        (np.abs(STEPS - 100) / 100, "It diverges: its lowest level was about step 1"),
    ],
)
def test_a_loss_that_is_not_low_enough_has_a_trend(curve, size, text):
    """A plateau, a divergence, or a fall, with noise or without."""
    assert text in trend_text(noisy(curve, 0, size))
    with pytest.raises(NotConverged, match=text):
        assert_converged(noisy(curve, 0, size), below=-1)


def test_a_short_curve_has_no_trend():
    """Fifteen losses are too few."""
    assert trend_text(FALLING[:15]) == ""


def test_a_loss_must_settle():
    """The last tenth is compared with the tenth before."""
    assert_converged(0.5 + np.exp(-STEPS / 8), settled=0.01)
    with pytest.raises(NotConverged, match=r"last 20 steps differs by 39\.3 % from"):
        assert_converged(FALLING, settled=0.01)
    with pytest.raises(BadArgument, match="settled needs at least 30 losses"):
        assert_converged(FALLING[:20], settled=0.01)


def test_a_loss_must_not_rise_on_its_way():
    """A spike in between, though the end is low."""
    losses = [1.0, 0.5, 0.9, 0.3, 0.1]
    assert_converged(losses, below=0.2, max_rise=0.5)
    with pytest.raises(NotConverged, match="diverged: at step 2 it was above its lowest"):
        assert_converged(losses, below=0.2, max_rise=0.3)


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"w": np.ones(2), "steps": 3, "name": "x"}, None),
        ({"mask": np.array([0, -np.inf])}, None),
        ({"layers": [{"w": np.array([1, np.nan])}]}, "layers[0].w: 1 value"),
        ([np.array([np.inf, np.nan])], "[0]: 2 values"),
    ],
)
def test_a_state_must_be_finite(state, found):
    """The entry is named, and a mask is allowed."""
    if found is None:
        assert_converged([0.1], below=1, state=state)
    else:
        assert found in first_not_finite(state)
        with pytest.raises(NotConverged, match="the loss is finite, but the state is not"):
            assert_converged([0.1], below=1, state=state)


def test_parameters_and_buffers_of_a_model_must_be_finite():
    """A running mean with NaN is named, and a mask of a buffer is allowed."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.full((2,), float("-inf")))
    assert_converged([0.1], below=1, state=model)
    model[0].running_mean[0] = float("nan")
    with pytest.raises(NotConverged, match=r"0\.running_mean: 1 value"):
        assert_converged([0.1], below=1, state=model)


def test_a_run_knows_its_steps_to_recover():
    """Without a restart, with one that takes 30 steps again, and one that never comes back."""
    golden = run_of([noisy(FALLING, 0)])
    late = noisy(FALLING, 1)
    late[50:80] += 0.5
    assert run_of([late], golden).steps_to_recover() == pytest.approx(30, abs=4)
    restarted = run_of([noisy(FALLING, 1)[:130], noisy(FALLING, 2)[100:]], golden)
    assert restarted.steps_to_recover() == 30
    restarted.assert_converged(below=0.1, recovers_within=30)
    with pytest.raises(NotConverged, match="took 30 steps to be back in the golden band"):
        restarted.assert_converged(recovers_within=29)
    lost = run_of([noisy(FALLING, 1) + 1], golden)
    assert lost.steps_to_recover() is None
    with pytest.raises(NotConverged, match="not back in the golden band at the end"):
        lost.assert_converged(recovers_within=10)


def run_of(curves, golden=None):
    """A run with these losses of its attempts."""
    attempts = tuple(Attempt("returned", len(curve)) for curve in curves)
    value = [loss for curve in curves for loss in curve]
    record = Record(value, attempts, (), 0.0, kept=value, losses=[list(one) for one in curves])
    return Run(record, (lambda: golden) if golden else None)
