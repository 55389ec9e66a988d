"""``mlchaos.compare`` judges a metric over seeds, and counts only seeds in which a fault struck."""

from __future__ import annotations

import math

import pytest

# It cannot be imported twice: the run of an example forgets what it has imported.
pytest.importorskip("scipy.special")

from pytest_mlchaos.comparing.api import _whole_numbers
from pytest_mlchaos.comparing.pairs import SeedPair
from pytest_mlchaos.comparing.seeds import reader_of
from pytest_mlchaos.comparing.verdicts import Comparison
from pytest_mlchaos.errors import BadArgument, Inconclusive, MetricMissed, Worse

JOB = """
    import math
    import random
    from pytest_mlchaos import batches, chaos

    def train(seed, harm, out=None):
        score = 0.9 + 0.01 * random.Random(seed).random()
        if out is not None:
            done = out / "done"
            score -= done.exists()
            done.write_text("")
        for batch in batches([[1.0], [2.0], [3.0]]):
            if math.isnan(batch[0]):
                score -= harm
        return {"accuracy": score}
"""


def test_each_seed_meets_the_fault_or_is_not_evidence(example):
    """A sound subject passes after five seeds, and a harmed one fails. Each run starts from the
    same directory. A search finds the visit that harms. A seed that the fault does not strike is an
    error.
    """
    outcome = example.with_tests(
        JOB
        + """
    @chaos.corrupt_batch(kind="nan", at=1)
    def test_sound(mlchaos, tmp_path):
        comparison = mlchaos.compare(train, 0.001, tmp_path, metric="accuracy")
        comparison.assert_not_worse(margin=0.05)
        assert len(comparison._pairs) == 5
        assert not list(tmp_path.glob("done"))
        comparison.assert_metric(at_least=0.85)
        assert round(comparison.golden[3] - comparison.faulted[3], 6) == 0.001

    @chaos.corrupt_batch(kind="nan", at=1)
    def test_harmed(mlchaos):
        comparison = mlchaos.compare(train, 0.2, metric=lambda value: value["accuracy"])
        comparison.assert_not_worse(margin=0.05)

    def varied(seed):
        return float(sum(batch[0] for batch in batches([[1.0]] * (4 - seed % 2 * 2))))

    @chaos.corrupt_batch(kind="inf", at=2)
    def test_unstruck(mlchaos):
        mlchaos.compare(varied, seeds=[0, 2, 3, 4])._run(4)

    def late(seed):
        score = 1.0
        for place, batch in enumerate(batches([[1.0], [2.0], [3.0]])):
            if math.isnan(batch[0]) and place == 2:
                score -= 0.5
        return score

    @chaos.settings(max_trials=10)
    @chaos.corrupt_batch(kind="nan")
    def test_searched(mlchaos):
        mlchaos.compare(late, seeds=range(6)).assert_not_worse(margin=0.1)
"""
    ).run()
    assert outcome.outcomes == {"passed": 1, "failed": 3}
    outcome.has(
        "test_harmed",
        "it is worse by more than the margin",
        "did not strike in the run of seed 3",
        "this was seed 3 of mlchaos.compare",
        "at=2",
    )


@pytest.mark.slow
def test_each_seed_is_restarted_and_has_a_process_of_its_own(example):
    """A crash strikes each seed, in process and in fresh processes, and a seed that fails under
    faults is named.
    """
    outcome = example.with_tests(
        """
    import pytest
    from pytest_mlchaos import batches, chaos

    def job(seed, out):
        done = out / "done"
        start = int(done.read_text()) if done.exists() else 0
        for place, _ in enumerate(batches([[float(number)] for number in range(6)])):
            if place >= start:
                done.write_text(str(place + 1))
        return float(done.read_text()) + seed

    @pytest.mark.parametrize("isolation", ["in-process", "process"])
    @chaos.crash(site="data.batch", at=3)
    def test_crash(mlchaos, tmp_path, isolation):
        comparison = mlchaos.compare(job, tmp_path, seeds=range(5), isolation=isolation)
        comparison.assert_not_worse(margin=0.5)
        assert comparison.golden == comparison.faulted

    @chaos.corrupt_batch(kind="nan", at=1)
    def test_raises(mlchaos):
        def fails(seed):
            for batch in batches([[1.0], [2.0]]):
                if batch[0] != batch[0] and seed == 2:
                    raise ValueError("not a number")
            return 1.0

        mlchaos.compare(fails).assert_not_worse(margin=1)

    def test_no_fault(mlchaos):
        mlchaos.compare(lambda seed: 1.0).assert_not_worse(margin=1)

    @chaos.corrupt_batch(kind="nan", at=1)
    def test_nothing_judged(mlchaos):
        mlchaos.compare(lambda seed: float(len(list(batches([[1.0], [2.0]])))))
"""
    ).run()
    assert outcome.outcomes == {"passed": 2, "failed": 3}
    outcome.has(
        "ValueError: not a number",
        "this was seed 2 of mlchaos.compare",
        "this test declares no fault",
        "nothing judged the result of mlchaos.compare(...)",
    )


@pytest.mark.slow
def test_runs_at_one_time_give_the_same_results(example):
    """In the order of the seeds, and no seed runs that a result in turn would not need."""
    example.with_tests(
        """
    import random, time
    import pytest
    from pytest_mlchaos import batches, chaos

    def job(seed):
        start = time.monotonic()
        total = sum(batch[0] for batch in batches([[1.0]] * 6) if batch[0] == batch[0])
        time.sleep(0.5)
        return {"total": total + seed + random.random(), "span": (start, time.monotonic())}

    results = {}

    @chaos.corrupt_batch(kind="nan", at=1)
    @pytest.mark.parametrize("jobs", [1, 2, 4])
    def test_values(mlchaos, jobs):
        spans = []

        def read(value):
            spans.append(value["span"])
            return value["total"]

        comparison = mlchaos.compare(
            job, seeds=range(20), metric=read, jobs=jobs, isolation="process"
        )
        comparison.assert_not_worse(margin=3)
        assert [strike.visit for strike in mlchaos.journal] == [1]
        overlap = any(a[0] < b[0] < a[1] for a in spans for b in spans)
        assert overlap == (jobs > 1)
        assert len(spans) == 10  # five seeds make it clear
        results[jobs] = comparison._pairs
        assert results[jobs] == results[1]

    @chaos.crash(site="data.batch", at=3)
    def test_restarts(mlchaos):
        comparison = mlchaos.compare(job, seeds=range(5), metric="total", jobs=4)
        assert all(pair.golden - pair.faulted < 1 for pair in comparison.pairs)

    @chaos.corrupt_batch(kind="nan", at=1)
    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"jobs": 0}, "jobs must be 1 or more, or 'auto', got 0"),
            ({"jobs": 2, "isolation": "in-process"}, "jobs must be 1, got 2, because the runs take"),
            ({"jobs": 2, "args": True}, "jobs must be 1, got 2, because the runs share /"),
        ],
    )
    def test_wrong(mlchaos, tmp_path, keywords, message):
        (tmp_path / "out").mkdir()
        args = [tmp_path / "out"] if keywords.pop("args", False) else []
        with pytest.raises(Exception, match=message):
            mlchaos.compare(job, *args, metric="total", **keywords)
        mlchaos.compare(job, metric="total", seeds=[0]).pairs
"""
    ).run(passed=7)


def compared(faulted, golden=None, missed=()):
    """A comparison of these metrics, without any run."""
    golden = golden or [0.9] * len(faulted)
    return Comparison(
        range(len(faulted)),
        lambda seed: SeedPair(
            seed, golden[seed], faulted[seed], ("gpu_oom(at=3)",) if seed in missed else ()
        ),
    )


def test_a_comparison_stops_when_it_is_clear():
    """Five seeds that agree, of fifty."""
    comparison = compared([0.9] * 50)
    comparison.assert_not_worse(margin=0.01)
    assert len(comparison._pairs) == 5
    assert compared([0.9] * 8).assert_not_worse(margin=0.01, sequential=False) is None


@pytest.mark.parametrize(
    ("comparison", "error", "message"),
    [
        (compared([0.9, 0.7] * 4), Inconclusive, "has run all 8 seeds: give more"),
        (compared([0.9] * 4), Inconclusive, "At least 1 more pairs are needed"),
        (compared([0.5] * 8), Worse, "by more than the margin"),
        (compared([0.9, math.nan] * 4), Worse, "under faults the metric of seed 1 is nan"),
        (
            compared([0.9] * 8, missed=range(2, 8)),
            Inconclusive,
            "(6 of 8 seeds do not count, because gpu_oom(at=3) did not strike in them)",
        ),
    ],
)
def test_a_comparison_that_is_not_clear_says_why(comparison, error, message):
    """Seeds that do not count are not evidence."""
    with pytest.raises(error) as caught:
        comparison.assert_not_worse(margin=0.05)
    assert message in str(caught.value)


def test_the_metric_under_faults_is_judged_alone():
    """By its mean over seeds."""
    compared([0.90, 0.91, 0.89, 0.9, 0.92]).assert_metric(at_least=0.85)
    with pytest.raises(MetricMissed):
        compared([0.90, 0.91, 0.89, 0.9, 0.92]).assert_metric(at_least=0.95)
    with pytest.raises(Inconclusive, match="no fault struck in any seed"):
        compared([0.9] * 3, missed=range(3)).assert_metric(at_least=0.1)


def test_a_seed_that_failed_leaves_nothing_to_judge():
    """Its error was raised, and the test went on."""

    def fail(seed):
        raise ValueError(seed)

    comparison = Comparison(range(5), fail)
    with pytest.raises(ValueError):
        comparison.assert_not_worse(margin=1)
    with pytest.raises(BadArgument, match="an earlier seed failed"):
        comparison.assert_not_worse(margin=1)


@pytest.mark.parametrize("seeds", [8, "123", [], [1, 1], [-1], [0.5], [True], None])
def test_seeds_must_be_different_whole_numbers(seeds):
    """Each run needs its own."""
    with pytest.raises(BadArgument, match=r"mlchaos.compare: seeds must be .*, got"):
        _whole_numbers(seeds)


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [
        (1.5, None, "metric must be a function"),
        (True, None, "metric must be a function"),
        ("loss", {"accuracy": 1.0}, "is not an entry of the returned value"),
        (3, [1.0], "is not an entry of the returned value"),
        (None, {"accuracy": 1.0}, "the subject must return its metric, a number"),
        (None, None, "the subject must return its metric, a number"),
    ],
)
def test_a_metric_must_be_found_in_the_value(metric, value, message):
    """The message says what the value is."""
    with pytest.raises(BadArgument, match=message):
        reader_of(metric)(value)
