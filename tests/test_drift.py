"""``assert_no_drift``: statistics against known values, SciPy and simulation; what cannot be judged
never passes.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mlchaos import assert_no_drift
from pytest_mlchaos.errors import BadArgument, Drifted
from pytest_mlchaos.oracles import two_sample

NUMBERS = np.random.default_rng(0).normal(size=500)
WORDS = ["a", "b", "b", "c"] * 50
samples = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=30)


def ks(a, b):
    """Distance and p-value of two samples."""
    a, b = np.sort(a), np.sort(b)
    distance = two_sample.ks_distance(a, b)
    return distance, two_sample.ks_p(distance, a, b)


def drifts(*arguments, **keywords):
    """Return True if the two samples drift."""
    try:
        assert_no_drift(*arguments, **keywords)
    except Drifted:
        return True
    return False


# -- statistics ------------------------------------------------------------------------------------


def test_ks_of_two_samples_that_are_apart_is_one_in_so_many_orders():
    """3 against 3: 2 of the 20 orders are as extreme; 4 against 6: 2 of 210."""
    assert ks([1, 2, 3], [4, 5, 6]) == (1.0, pytest.approx(0.1))
    assert ks([1, 2, 3, 4], [5, 6, 7, 8, 9, 10]) == (1.0, pytest.approx(2 / 210))
    assert two_sample.smallest_p(4, 6) == pytest.approx(2 / 210)


def test_ks_with_ties_counts_orders_by_hand():
    """Two of the 6 splits of 1, 1, 2, 2 separate them and reach the distance 1: p = 1/3."""
    assert ks([1, 1], [2, 2]) == (1.0, pytest.approx(1 / 3))
    assert ks([1, 2], [1, 2]) == (0.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("x", "degrees", "p"),
    [(3.841459, 1, 0.05), (18.307038, 10, 0.05), (6.634897, 1, 0.01), (16.918978, 9, 0.05)],
)
def test_chi_squared_tail_is_that_of_the_tables(x, degrees, p):
    """Abramowitz and Stegun, table 26.8."""
    assert two_sample.chi2_sf(x, degrees) == pytest.approx(p, abs=1e-7)


def test_psi_is_the_sum_of_the_definition():
    """Two bins, 50/50 against 25/75, with half a value added to each."""
    counts = np.array([[50, 50], [25, 75]])
    one, other = np.array([50.5, 50.5]) / 101, np.array([25.5, 75.5]) / 101
    assert two_sample.psi(counts) == pytest.approx(
        float(((other - one) * np.log(other / one)).sum())
    )
    assert two_sample.psi(counts[::-1]) == pytest.approx(two_sample.psi(counts))
    assert math.isfinite(two_sample.psi(np.array([[10, 0], [0, 10]])))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.integers(1, 8))
def test_ks_with_ties_is_the_share_of_all_ways_to_deal_the_values_out(values, n):
    """Counted one by one."""
    n = min(n, len(values) - 1)
    ways = [set(way) for way in itertools.combinations(range(len(values)), n)]
    found = [
        ks([values[i] for i in way], [values[i] for i in range(len(values)) if i not in way])
        for way in ways
    ]
    for distance, p in found:
        assert p == pytest.approx(np.mean([other >= distance - 1e-9 for other, _ in found]))


@settings(max_examples=60, deadline=None)
@given(samples, samples)
def test_ks_agrees_with_scipy(a, b):
    """The distance always, and the exact p-value where no values tie."""
    stats = pytest.importorskip("scipy.stats")
    expected = stats.ks_2samp(a, b, method="exact")
    distance, p = ks(a, b)
    assert distance == pytest.approx(expected.statistic, abs=1e-12)
    if len({*a, *b}) == len(a) + len(b):
        assert p == pytest.approx(expected.pvalue, rel=1e-9)


def test_large_samples_and_tails_agree_with_scipy():
    """The asymptotic p-value of KS within 1 %, chi-squared to rounding."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    for size, shift in [(20_000, 0.0), (20_000, 0.02), (30_000, 0.01)]:
        a, b = rng.normal(size=size), rng.normal(shift, size=size // 2)
        assert ks(a, b)[1] == pytest.approx(stats.ks_2samp(a, b).pvalue, rel=0.01)
    for x in (0.01, 1.0, 30.0, 400.0):
        for degrees in (1, 2, 7, 40, 301):
            assert two_sample.chi2_sf(x, degrees) == pytest.approx(
                stats.chi2.sf(x, degrees), rel=1e-9
            )
    counts = np.array([[120, 50, 30], [40, 90, 80]])
    assert two_sample.chi2_test(counts, 0.05) == pytest.approx(
        stats.chi2_contingency(counts, correction=False)[:2]
    )


def test_rare_categories_are_judged_by_permutation_close_to_fishers_exact_test():
    """8 of 10 against 2 of 10."""
    stats = pytest.importorskip("scipy.stats")
    counts = np.array([[8, 2, 0], [2, 7, 1]])
    statistic, p = two_sample.chi2_test(counts, 0.05)
    exact = stats.fisher_exact(counts).pvalue
    assert statistic == pytest.approx(stats.chi2_contingency(counts, correction=False)[0])
    assert p == pytest.approx(exact, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(samples, samples, st.randoms())
def test_ks_depends_on_the_order_of_the_values_alone(a, b, random):
    """Shuffled, mapped by an increasing function, mirrored, or with the samples exchanged, it is
    the same.
    """
    expected = ks(a, b)
    shuffled = random.sample(a, len(a))
    assert ks(shuffled, b) == expected
    assert ks([value**3 + 7 for value in a], [value**3 + 7 for value in b]) == pytest.approx(
        expected
    )
    assert ks([-value for value in a], [-value for value in b]) == pytest.approx(expected)
    assert ks(b, a) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(any), min_size=2, max_size=8),
    st.randoms(),
)
def test_chi_squared_does_not_depend_on_names_or_sides(pairs, random):
    """Categories in another order, and the samples exchanged."""
    counts = np.array(pairs).T
    if not counts.sum(1).all():
        return
    found = two_sample.chi2_test(counts, 0.05)
    other = two_sample.chi2_test(np.array(random.sample(pairs, len(pairs))).T[::-1], 0.05)
    assert found[0] == pytest.approx(other[0])
    assert found[1] == pytest.approx(other[1], abs=0.03)  # other shuffles


@pytest.mark.parametrize("size", [1, 7, 1000, 200_000])
def test_bins_hold_every_value_once_and_about_a_tenth_each(size):
    """Whatever the size, ties included."""
    values = np.random.default_rng(1).normal(size=size + 1)
    counts = two_sample.bin_counts(values, values[::-1], 10)
    assert counts.sum(1).tolist() == [size + 1, size + 1]
    assert (counts[0] == counts[1]).all()
    if size >= 1000:
        assert counts[0] == pytest.approx(size / 10, rel=0.05)
    tied = np.array([0.0] * 95 + [1.0] * 5)
    assert two_sample.bin_counts(1 - tied, tied, 10).tolist() == [[5, 95], [95, 5]]


# -- false alarms and power, by simulation ---------------------------------------------------------

DRAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "counts": lambda rng, n: rng.poisson(2.0, size=n),
    "classes": lambda rng, n: rng.choice(5, size=n, p=[0.5, 0.3, 0.15, 0.04, 0.01]),
}


@pytest.mark.parametrize(
    ("method", "draw", "n", "m"),
    [
        ("ks", "normal", 12, 9),
        ("ks", "normal", 60, 80),
        ("ks", "counts", 40, 40),
        ("chi2", "classes", 10, 14),
        ("chi2", "classes", 300, 200),
        ("psi", "normal", 50, 50),
        ("psi", "normal", 150, 90),
        ("psi", "counts", 200, 200),
    ],
)
def test_samples_without_drift_fail_no_more_often_than_alpha_says(method, draw, n, m):
    """300 pairs each: at most alpha, and three standard errors of the simulation."""
    rng, alpha, pairs = np.random.default_rng(7), 0.05, 300
    data = [(DRAWS[draw](rng, n), DRAWS[draw](rng, m)) for _ in range(pairs)]
    alarms = np.mean([drifts(a, b, method=method, alpha=alpha) for a, b in data if len(set(b)) > 1])
    assert alarms <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / pairs)


def test_a_table_without_drift_fails_no_more_often_than_alpha_says():
    """Eight columns are judged together: without a correction it would be a third of the tables."""
    rng, pairs = np.random.default_rng(11), 100
    alarms = np.mean(
        [drifts(rng.normal(size=(40, 8)), rng.normal(size=(40, 8))) for _ in range(pairs)]
    )
    assert alarms <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / pairs)


@pytest.mark.parametrize("method", ["ks", "psi"])
def test_a_shift_is_seen_and_more_surely_in_larger_samples(method):
    """Half a standard deviation."""
    rng = np.random.default_rng(5)
    power = [
        np.mean(
            [drifts(rng.normal(size=n), rng.normal(0.6, size=n), method=method) for _ in range(60)]
        )
        for n in (60, 400)
    ]
    assert power[0] < power[1]
    assert power[1] > 0.95


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "current", "keywords", "message"),
    [
        (NUMBERS, NUMBERS[:200] + 0.8, {}, "the column: KS distance 0.3"),
        (
            NUMBERS,
            NUMBERS + 0.8 * NUMBERS.std(),
            {},
            "mean +0.8, 5 % quantile +0.8, median +0.8, 95 % quantile +0.8; spread 1",
        ),
        (
            NUMBERS,
            NUMBERS + 3,
            {"method": "psi"},
            "(threshold 0.2), 500 values against 500\n  bin 10 of 10 holds",
        ),
        (
            WORDS,
            ["a", "b", "d", "d"] * 50,
            {},
            "a category unseen in the reference makes up 50.0% instead of 0.0%; 100 values in 1 "
            "unseen category",
        ),
        (
            WORDS,
            ["a", "a", "a", "b"] * 50,
            {},
            "the reference's category number 2 by frequency makes up 75.0% instead of 25.0%",
        ),
        (
            WORDS,
            ["a", "x", "y", "z"] * 50,
            {"method": "psi"},
            "group 1 of 6 holds 0.0% instead of 50.0%",
        ),
        (
            {"x": NUMBERS, "y": NUMBERS},
            {"x": NUMBERS, "y": NUMBERS + 1},
            {},
            "1 of 2 columns drifted\n  column 'y': KS distance",
        ),
        (
            NUMBERS,
            [*NUMBERS[:97], math.nan, math.nan, math.nan],
            {},
            "cannot be judged: it has 3 NaN or missing among 100 values",
        ),
        (NUMBERS, [*NUMBERS[:99], math.inf], {}, "it has 1 infinite among 100 values"),
        (NUMBERS, [], {}, "it is empty"),
        (NUMBERS, [0.5] * 100, {}, "it is constant: 100 times the same value"),
        (WORDS, ["a"] * 100, {}, "it is constant: 100 times the same category"),
        (NUMBERS, NUMBERS[:2], {}, None),
        (NUMBERS[:10], NUMBERS[:1], {}, "it is constant"),
        (NUMBERS, WORDS, {}, "holds categories, but the reference holds numbers"),
        (WORDS, [*WORDS, 1.0], {}, "it mixes numbers with other values"),
        (
            {"x": NUMBERS},
            {"y": NUMBERS},
            {},
            "2 of 2 columns drifted\n  column 'x': is missing\n  column 'y': is not in the "
            "reference",
        ),
        ({"x": NUMBERS}, NUMBERS, {}, "is a single column, but the reference is a table"),
        (
            NUMBERS,
            3,
            {},
            "cannot be judged: current must be an array, a list, a tensor or a table, got int",
        ),
        (
            {"x": NUMBERS, "y": NUMBERS},
            {"x": NUMBERS, "y": NUMBERS[:5]},
            {},
            "must have columns of one length, got 500, 5",
        ),
    ],
)
def test_a_drift_is_told(reference, current, keywords, message):
    """Which column, by how much, and where to; what is wrong with the current values is their
    maker's failure.
    """
    if message is None:
        assert_no_drift(reference, current, **keywords)
        return
    with pytest.raises(Drifted) as caught:
        assert_no_drift(reference, current, **keywords)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "keywords", "message"),
    [
        ([], {}, "is empty"),
        ([1.0, math.nan, 2.0], {}, "has 1 NaN or missing among 3 values"),
        ([None, "a", "b"], {}, "has 1 NaN or missing among 3 values"),
        ([1.0, math.inf, 2.0], {}, "has 1 infinite among 3 values"),
        ([2, 2, 2, 2], {}, "is constant: 4 times the same value"),
        ([True] * 9, {}, "is constant: 9 times the same category"),
        ([1.0, 2.0, 3.0], {}, "has 3 values, too few to show a drift at this alpha"),
        (NUMBERS[:20], {"method": "psi"}, "so few that chance alone makes a PSI above 0.2"),
        (NUMBERS, {"method": "chi2"}, "too many to be categories"),
        ([f"user {i}" for i in range(50)], {}, "has 50 different values in 50 rows"),
        (WORDS, {"method": "ks"}, "holds categories, but method='ks' takes numbers"),
        (
            NUMBERS,
            {"method": "t"},
            "method must be 'auto', 'ks', 'psi', 'chi2', 'wasserstein', 'js', 'mmd', 'c2st' or 'energy', got 't' (str)",
        ),
        (
            {"x": NUMBERS},
            {"method": {"xx": "psi"}},
            "method= names 'xx', which is not in the reference (did you mean 'x'?)",
        ),
        (NUMBERS, {"alpha": 5}, "alpha must be between 0 and 1, got 5 (int)"),
        (NUMBERS, {"threshold": -1}, "threshold must be 0 or more"),
        (NUMBERS, {"bins": 1}, "bins must be from 2 to 100"),
        (
            np.zeros((2, 2, 2)),
            {},
            "must be a column (one dimension) or a table (two), got 3 dimensions",
        ),
        ([[1, 2], [3]], {}, "whose rows differ"),
        ("abc", {}, "must be an array, a list, a tensor or a table, got str"),
        ({}, {}, "a table without columns"),
        (
            np.array([1j, 2j]),
            {},
            "values of dtype complex128 cannot be judged",
        ),
    ],
)
def test_a_reference_or_argument_that_is_no_use_is_refused(reference, keywords, message):
    """Nothing passes for want of a judgement."""
    with pytest.raises(BadArgument) as caught:
        assert_no_drift(reference, reference, **keywords)
    assert message in str(caught.value)


def test_no_value_of_the_data_is_shown():
    """Neither numbers nor names of categories."""
    secret, other = [71_234.5 + i for i in range(50)], [98_765.5 + i for i in range(50)]
    for method, pair in [
        ("ks", (secret, other)),
        ("psi", (secret, other)),
        (None, (["alice", "bob"] * 40, ["carol", "dave"] * 40)),
    ]:
        with pytest.raises(Drifted) as caught:
            assert_no_drift(*pair, method=method)
        assert not any(
            word in str(caught.value) for word in ("7123", "9876", "alice", "bob", "carol", "dave")
        )


def test_a_threshold_lets_a_small_but_significant_drift_pass():
    """In units of the KS distance, and of Cramér's V."""
    large = np.random.default_rng(2).normal(size=20_000)
    assert drifts(large, large + 0.05)
    assert not drifts(large, large + 0.05, threshold=0.1)
    assert drifts(large, large + 0.5, threshold=0.1)
    words = [["a"] * n + ["b"] * (20_000 - n) for n in (10_000, 10_400, 15_000)]
    assert [drifts(words[0], other) for other in words[1:]] == [True, True]
    assert [drifts(words[0], other, threshold=0.1) for other in words[1:]] == [False, True]


def test_one_drifted_column_among_many_needs_more_evidence():
    """Holm's correction: what is significant alone is not among ten columns that did not move."""
    a, b = NUMBERS[:60], NUMBERS[:60] + 0.55
    assert 0.005 < ks(a, b)[1] < 0.05
    assert drifts(a, b)
    assert not drifts(
        {0: a} | dict.fromkeys(range(1, 10), a), {0: b} | dict.fromkeys(range(1, 10), a)
    )


@pytest.mark.parametrize(
    "kind", ["list", "float32", "float16", "int", "numbers in objects", "tuple"]
)
def test_any_array_like_is_taken(kind):
    """The same verdicts, whatever holds the numbers."""
    make = {
        "list": list,
        "tuple": tuple,
        "float32": lambda values: values.astype("f4"),
        "float16": lambda values: values.astype("f2"),
        "int": lambda values: (values * 10).astype(int),
        "numbers in objects": lambda values: values.astype(object),
    }[kind]
    assert_no_drift(make(NUMBERS), make(NUMBERS[::-1]))
    with pytest.raises(Drifted, match="KS distance"):
        assert_no_drift(make(NUMBERS), make(NUMBERS + 1))


def test_class_labels_are_judged_as_categories_where_asked():
    """KS would see a change of 1 to 2 only, whatever the labels mean."""
    labels = np.array([0, 1, 2, 2] * 50)
    with pytest.raises(Drifted, match="chi-squared"):
        assert_no_drift(labels, np.array([0, 1, 1, 2] * 50), method="chi2")
    assert_no_drift(labels, labels[::-1], method="chi2")


def test_data_frames_are_judged_column_by_column():
    """Texts, categories, booleans and numbers with gaps have their own methods and errors."""
    pd = pytest.importorskip("pandas")

    def frame(**columns):
        start = {
            "n": NUMBERS[:200],
            "s": WORDS,
            "c": pd.Categorical([1, 2, 2, 3] * 50),
            "b": [True, False] * 100,
        }
        return pd.DataFrame({**start, **columns})

    assert_no_drift(frame(), frame())
    assert_no_drift(frame()["c"], frame()["c"])
    with pytest.raises(Drifted, match="column 'c': chi-squared"):
        assert_no_drift(frame(), frame(c=pd.Categorical([1, 1, 1, 2] * 50)))
    gaps = pd.array([*range(199), None], dtype="Int64")
    with pytest.raises(
        Drifted, match="column 'n': cannot be judged: it has 1 NaN or missing among 200 values"
    ):
        assert_no_drift(frame(), frame(n=gaps))
    with pytest.raises(BadArgument, match="1 duplicate names"):
        assert_no_drift(pd.concat([frame(), frame()[["n"]]], axis=1), frame())


def test_tensors_are_taken_as_they_are():
    """Those that want gradients, of any precision, in dicts and as lists of numbers."""
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(NUMBERS, requires_grad=True)
    assert_no_drift(tensor, tensor.detach().bfloat16(), threshold=0.01)
    assert_no_drift({"x": tensor}, {"x": list(tensor.detach())})
    with pytest.raises(Drifted, match="column 1: KS distance"):
        assert_no_drift(torch.stack([tensor, tensor], 1), torch.stack([tensor, tensor + 1], 1))


def test_a_run_is_held_against_its_golden_run(example):
    """Predictions under faults; a key names them; what is not there is the run's failure."""
    outcome = example.with_tests("""
        import random
        def predict():
            rng, found = random.Random(0), []
            for _ in range(60):
                found.append(visit("model.predict", rng.random()))
            return {"scores": found, "note": "text"} if found[0] >= 0 else {}
        @chaos.register
        class Shift(Fault):
            site = "model.predict"
            def apply(self, visit): return visit.payload + 1
        @chaos.register
        class Lost(Fault):
            site = "model.predict"
            def apply(self, visit): return -1.0
        @chaos.shift(at=3)
        def test_passes(mlchaos): mlchaos.run(predict).assert_no_drift(key="scores")
        @chaos.shift(at=range(30))
        def test_drifts(mlchaos): mlchaos.run(predict).assert_no_drift(key="scores")
        @chaos.lost(at=0)
        def test_gone(mlchaos): mlchaos.run(predict).assert_no_drift(key="scores")
        @chaos.shift(at=3)
        def test_wrong_key(mlchaos): mlchaos.run(predict).assert_no_drift(key="score")
    """).run(passed=1, failed=3)
    outcome.has(
        "Drifted: the column: KS distance 0.5",
        "Drifted: assert_no_drift: the run returned no entry 'scores' but dict",
    )
    outcome.has(
        "BadArgument: assert_no_drift: the golden run returned no entry 'score' but dict with the "
        "keys scores, note"
    )


@pytest.mark.parametrize("current", [2**62 + 100, 2**62 + 2**40])
def test_whole_numbers_closer_than_floats_of_their_size_are_told_apart(current):
    """Converted to floats, the reference is constant. The report has no unit, but still fails."""
    steps = np.arange(50, dtype="i8")
    with pytest.raises(Drifted, match="less than the precision of floats"):
        assert_no_drift(2**62 + steps, current + steps)
