"""``assert_converged`` cannot pass on a loss that is not finite, not low enough, or not there."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlchaos import assert_converged
from pytest_mlchaos.errors import BadArgument, NotConverged

FALLING = [1.0, 0.5, 0.25, 0.1]


def test_a_loss_that_falls_in_time_has_converged():
    """Lists, arrays and generators alike."""
    assert_converged(FALLING, below=0.2)
    assert_converged(np.array(FALLING), below=0.3, by=2)
    assert_converged((value for value in FALLING), below=0.2, window=2)


@pytest.mark.parametrize(
    ("losses", "keywords", "message"),
    [
        ([1.0, float("nan"), 0.1], {}, "the loss is nan at step 1, and not finite at 1 of 3 steps"),
        ([1.0, 0.1, float("inf")], {}, "the loss is inf at step 2"),
        (
            FALLING,
            {"below": 0.05},
            "the loss is up to twice the bound at the last step (3), expected below 0.05",
        ),
        (
            FALLING,
            {"by": 1},
            "did not fall below 0.2 by step 1: the lowest, at step 1, was up to ten times the "
            "bound",
        ),
        (
            [1.0, 0.1, 0.9],
            {},
            "is up to ten times the bound at the last step (2), expected below 0.2, though it had "
            "been below it at step 1",
        ),
        ([0.1, 0.5, 0.1], {"window": 3}, "the mean loss over 3 steps"),
    ],
)
def test_a_loss_that_did_not_converge_says_how(losses, keywords, message):
    """The step and the figure are named."""
    with pytest.raises(NotConverged) as caught:
        assert_converged(losses, **{"below": 0.2, **keywords})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("losses", "keywords", "message"),
    [
        ([], {}, "losses must not be empty"),
        ([1.0], {"by": 1}, "by must be a step from 0 to 0, got 1 (int)"),
        ([1.0], {"window": 2}, "window must be from 1 to 1, the number of losses"),
        (["low"], {}, "the loss of step 0 must be a number, got str"),
    ],
)
def test_arguments_that_would_make_the_check_empty_are_refused(losses, keywords, message):
    """A check that cannot fail does not check anything."""
    with pytest.raises(BadArgument) as caught:
        assert_converged(losses, below=1.0, **keywords)
    assert message in str(caught.value)
