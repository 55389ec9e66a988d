"""The judgements of a load: each fails on an unsound app, and passes on its sound twin."""

from __future__ import annotations

import random

import pytest

from pytest_mlchaos import Load, Reply, assert_row_independent, assert_slo
from pytest_mlchaos.errors import BadArgument, Inconclusive, NotRowIndependent, SloMissed
from pytest_mlchaos.oracles.binomial import judge_share, requests_to_decide, share_of_at_most


def reply(number, latency=0.0, **keywords):
    """A reply that is made by hand."""
    return Reply(number=number, request=number, name="", latency=latency, **keywords)


# -- assert_slo: confidence, goodput, streams ------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 99, 100])
def test_share_of_at_most_equals_the_sum_of_the_binomial_distribution(count):
    """It is the distribution function."""
    from math import comb

    for p in (0.001, 0.01, 0.3, 0.99):
        exact = sum(comb(100, k) * p**k * (1 - p) ** (100 - k) for k in range(count + 1))
        assert share_of_at_most(count, 100, p) == pytest.approx(exact, rel=1e-9)


def test_judge_share_knows_the_numbers_of_the_textbooks():
    """299 requests without an exception show a p99 with 95 % confidence, 298 do not."""
    assert judge_share(0, 298, 0.01, 0.95) == "undecided"
    assert judge_share(0, 299, 0.01, 0.95) == "within"
    assert requests_to_decide(0, 50, 0.01, 0.95) == 299
    assert judge_share(20, 100, 0.01, 0.95) == "over"
    assert requests_to_decide(1, 100, 0.01, 0.95) is None


@pytest.mark.parametrize(
    ("slow", "count", "error"),
    [(0, 400, None), (0, 100, Inconclusive), (5, 400, Inconclusive), (40, 400, SloMissed)],
)
def test_slo_with_confidence_has_three_verdicts(slow, count, error):
    """What these requests show about all requests."""
    latencies = [2.0] * slow + [0.1] * (count - slow)
    if error is None:
        assert_slo(latencies, p99=1, confidence=0.95)
        return
    with pytest.raises(error) as caught:
        assert_slo(latencies, p99=1, confidence=0.95)
    assert ("About 299 would decide" in str(caught.value)) == (slow == 0)


def test_slo_of_errors_with_confidence_is_inconclusive_at_few_requests():
    """One of ten failed: the rate of all requests may be above or below 5 %."""
    with pytest.raises(Inconclusive, match=r"an error rate of at most 0.05: 1 of 10 failed"):
        assert_slo([0.1] * 10, errors=1, error_rate=0.05, confidence=0.95)
    with pytest.raises(Inconclusive, match=r"an availability of at least 0\.9"):
        assert_slo([0.1] * 10, errors=1, availability=0.9, confidence=0.95)


def test_goodput_counts_requests_within_all_bounds():
    """A slow one and a failed one are not good; the rate counts good ones a second."""
    replies = [reply(n, latency=3.0 if n == 0 else 0.5, start=n, ok=n != 1) for n in range(10)]
    load = Load(replies)
    load.assert_slo(p50=1, goodput=0.8)
    load.assert_slo(p50=1, goodput="0.8/s")
    with pytest.raises(SloMissed, match=r"the goodput is 0.8, expected at least 0.9 \(8 of 10"):
        load.assert_slo(p50=1, goodput=0.9)
    with pytest.raises(SloMissed, match=r"expected at least 2 a second"):
        load.assert_slo(p50=1, goodput=2)
    with pytest.raises(BadArgument, match="goodput= counts the requests that meet all bounds"):
        load.assert_slo(goodput=0.9)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"p99": 1, "confidence": 1}, "confidence must be a share between 0 and 1"),
        ({"p99": 1, "goodput": "fast"}, "goodput must be a share up to 1"),
        ({"ttft_p99": 1}, "ttft_p99 needs more than latencies"),
        ({"ttft_p9x": 1}, "unknown bound 'ttft_p9x' (did you mean 'ttft_p99'?)"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds, message):
    """Never a pass."""
    with pytest.raises(BadArgument) as caught:
        assert_slo([1], **bounds)
    assert message in str(caught.value)


def test_slo_of_streams_needs_replies_with_tokens():
    """A bound that limits nothing is refused."""
    with pytest.raises(BadArgument, match="none of these 1 replies has a body"):
        Load([reply(0)]).assert_slo(ttft_p99=1)


# -- assert_row_independent ------------------------------------------------------------------------


def test_rows_that_are_predicted_for_themselves_pass():
    """As lists, arrays, and of a handler that is async."""
    np = pytest.importorskip("numpy")
    rows = np.arange(24.0).reshape(12, 2)

    async def later(batch):
        return [{"score": float(row.sum())} for row in batch]

    for handler in (lambda batch: batch @ np.ones(2), later):
        assert_row_independent(handler, rows)
    assert_row_independent(lambda batch: [len(text) for text in batch], ["a", "bc", ""])


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lambda batch: [x - max(batch) for x in batch], "row 0 predicts differently in a batch"),
        (lambda batch: [1 / x for x in batch], r"with row 3 than alone: the batch raises Zero"),
        (sorted, "row 0 predicts differently in a batch with row 1"),
        (lambda batch: batch[:2], "2 predictions for a batch of 5 rows"),
        (lambda batch: batch if len(batch) < 3 else [0] * len(batch), "No single one of them"),
    ],
)
def test_rows_that_change_each_other_are_found(handler, message):
    """Normalisation over the batch, a bad row, a wrong order, a lost row, and the batch's size."""
    with pytest.raises(NotRowIndependent, match=message):
        assert_row_independent(handler, [3.0, 1.0, 2.0, 0, 5.0])


def test_a_handler_that_draws_random_numbers_is_inconclusive():
    """It differs from itself."""
    with pytest.raises(Inconclusive, match="row 0 alone predicts differently when"):
        assert_row_independent(lambda batch: [random.random() for _ in batch], [1, 2])
    with pytest.raises(BadArgument, match="each row fails alone"):
        assert_row_independent(lambda batch: 1 / 0, [1, 2])
