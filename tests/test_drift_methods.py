"""``assert_no_drift`` by distances, kernels and classifiers; vectors, times, slices and missing values.

The statistics are compared with SciPy, frouros and evidently if these are installed.
"""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from pytest_mlchaos import assert_no_drift
from pytest_mlchaos.errors import BadArgument, Drifted
from pytest_mlchaos.oracles.drift import distances, points
from pytest_mlchaos.oracles.drift.permutations import p_value, quadratic_p
from pytest_mlchaos.oracles.two_sample import psi

RNG = np.random.default_rng(0)
FLAT = RNG.normal(size=(150, 2))
A, B = FLAT[:, 0], RNG.normal(size=120)
VECTORS = RNG.normal(size=(100, 6))
PROBABILITIES = RNG.dirichlet(np.ones(3), 120)
HOURS = [datetime.datetime(2026, 1, 1) + datetime.timedelta(hours=i) for i in range(100)]
GROUPS = np.array(["a"] * 80 + ["b"] * 60 + ["c"] * 10)


def dependent(n, share, seed):
    """Return two columns with the same marginals, which are equal in a share of the rows."""
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, n))
    return np.column_stack([one, np.where(rng.random(n) < share, one, other)])


def drift_of(*arguments, **keywords):
    """Return the message of a drift, or an empty text."""
    try:
        assert_no_drift(*arguments, **keywords)
    except Drifted as drift:
        return str(drift)
    return ""


# -- statistics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 400])
def test_distances_agree_with_scipy(size):
    """Wasserstein, energy and Jensen-Shannon, ties included."""
    stats = pytest.importorskip("scipy.stats")
    spatial = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(size)
    for draw in (rng.normal, lambda size: rng.poisson(2.0, size)):
        a, b = np.sort(draw(size=size)), np.sort(draw(size=size + 3)) + 0.5
        assert distances.wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b))
        # The energy distance of SciPy is the square root of the numerator of the coefficient.
        between = 2 * np.abs(a[:, None] - b).mean()
        expected = stats.energy_distance(a, b) ** 2 / between
        assert distances.energy_coefficient(a, b) == pytest.approx(expected)
        counts = distances.pooled_bins(a, b, 10)
        assert counts.sum(1).tolist() == [len(a), len(b)]
        assert distances.jensen_shannon(counts) == pytest.approx(
            spatial.jensenshannon(*counts, base=2)
        )


def test_the_energy_coefficient_is_the_same_for_points_and_numbers():
    """The matrix of one column gives what the sorted values give."""
    squares = points.squared_distances(np.concatenate([A, B])[:, None])
    assert points.energy(np.sqrt(squares), len(A)) == pytest.approx(
        distances.energy_coefficient(np.sort(A), np.sort(B)), rel=1e-4
    )


def test_mmd_is_the_sum_of_its_definition():
    """The unbiased estimate, with each pair of the kernel written out."""
    a, b = FLAT[:6], FLAT[6:11] + 1
    kernel = points.rbf_kernel(points.squared_distances(np.concatenate([a, b])))
    pairs = np.linalg.norm(np.concatenate([a, b])[:, None] - np.concatenate([a, b]), axis=2)
    median = np.median(pairs[pairs > 0] ** 2)
    expected = np.mean([np.exp(-(pairs**2) / (2 * median * s**2)) for s in (0.5, 1, 2)], axis=0)
    assert kernel == pytest.approx(expected, abs=1e-5)
    one = expected[:6, :6].sum() - 6
    two = expected[6:, 6:].sum() - 5
    value = one / 30 + two / 20 - 2 * expected[:6, 6:].mean()
    assert points.mmd_squared(kernel, 6) == pytest.approx(value, abs=1e-5)


def test_neighbours_share_ties_so_the_order_of_rows_decides_nothing():
    """Each row of weights adds up to the number of neighbours, and equal points get equal ones."""
    tied = np.array([[0.0]] * 6 + [[1.0]] * 6)
    weights = points.neighbours(points.squared_distances(tied))
    assert weights.sum(1) == pytest.approx(np.full(12, 5))
    assert weights[0, 1:6] == pytest.approx(np.ones(5))
    order = np.random.default_rng(3).permutation(150)
    squares = points.squared_distances(np.round(FLAT))
    weights = points.neighbours(squares)
    again = points.neighbours(squares[order][:, order])
    assert again == pytest.approx(weights[order][:, order])


def test_a_classifier_of_two_heaps_is_always_right_and_of_one_heap_is_at_chance():
    """0.5 is chance."""
    apart = np.concatenate([FLAT, FLAT + 100])
    weights = points.neighbours(points.squared_distances(apart))
    assert points.classifier_accuracy(weights, 150) == 1.0
    rng = np.random.default_rng(1)
    heaps = [points.squared_distances(rng.normal(size=(80, 2))) for _ in range(50)]
    found = [points.classifier_accuracy(points.neighbours(heap), 30) for heap in heaps]
    assert np.mean(found) == pytest.approx(0.48, abs=0.04)  # its own label is missing


def test_a_p_value_counts_itself_and_stops_when_it_is_surely_large():
    """(1 + k) / (1 + B), or 20 hits in so many draws (Besag and Clifford)."""
    drawn = []

    def draw(count):
        drawn.append(count)
        return np.arange(count) % 2

    assert p_value(2, draw, 299) == pytest.approx(1 / 300)
    assert sum(drawn) == 299
    assert p_value(1, draw, 299) == pytest.approx(20 / 40)
    assert p_value(0, draw, 299) == 1.0


def test_the_permutation_test_of_a_constant_kernel_is_never_significant():
    """All points are equal, so each assignment gives the same statistic."""
    assert quadratic_p(np.ones((20, 20), dtype="f4"), 10, 299) == 1.0


def test_values_agree_with_frouros():
    """MMD, Wasserstein, PSI, Jensen-Shannon and KS on the same data."""
    frouros = pytest.importorskip("frouros.detectors.data_drift")
    from frouros.utils.kernels import rbf_kernel

    def theirs(name, a, b, **options):
        detector = getattr(frouros, name)(**options)
        detector.fit(X=a)
        return detector.compare(X=b)[0]

    emd = theirs("EMD", A, B).distance
    assert distances.wasserstein(np.sort(A), np.sort(B)) == pytest.approx(emd)
    energy = theirs("EnergyDistance", A, B).distance
    between = 2 * np.abs(A[:, None] - B).mean()
    ours = distances.energy_coefficient(np.sort(A), np.sort(B))
    assert (ours * between) ** 0.5 == pytest.approx(energy)
    a, b = FLAT[:60], FLAT[60:] + 0.5
    median = np.median([d for d in ((a[:, None] - b) ** 2).sum(-1).ravel() if d > 0])
    kernel = rbf_kernel(np.concatenate([a, b]), np.concatenate([a, b]), sigma=median**0.5)
    detector = theirs("MMD", a, b, kernel=lambda X, Y: rbf_kernel(X, Y, sigma=median**0.5))
    assert points.mmd_squared(kernel, 60) == pytest.approx(detector.distance, abs=1e-9)


def test_values_agree_with_evidently():
    """Wasserstein, Jensen-Shannon and PSI on the same data."""
    pytest.importorskip("evidently", exc_type=ImportError)  # it needs pandas 2
    pd = pytest.importorskip("pandas")
    from evidently.legacy.calculations.stattests import jensenshannon_stat_test, psi_stat_test
    from evidently.legacy.calculations.stattests import wasserstein_stat_test as w1
    from evidently.legacy.core import ColumnType

    def theirs(test, a, b, kind):
        return test.func(pd.Series(a), pd.Series(b), ColumnType(kind), 0.1)[0]

    ours = distances.wasserstein(np.sort(A), np.sort(B)) / A.std()
    assert ours == pytest.approx(theirs(w1, A, B, "num"), rel=0.01)  # it divides by n - 1
    words = list("aab") * 40, list("abc") * 40
    counts = np.array([[80, 40, 0], [40, 40, 40]])
    natural = distances.jensen_shannon(counts) * np.log(2) ** 0.5  # its logarithms are to e
    assert natural == pytest.approx(theirs(jensenshannon_stat_test, *words, "cat"), rel=1e-3)
    words = list("aab") * 4_000, list("abb") * 4_000
    ours = psi(np.array([[8_000, 4_000], [4_000, 8_000]]))
    assert ours == pytest.approx(theirs(psi_stat_test, *words, "cat"), rel=1e-3)


# -- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mmd", "energy", "c2st", "auto"])
def test_a_change_that_no_column_shows_is_seen_together(method):
    """The message names the pair whose correlation changed."""
    assert not drift_of(FLAT, dependent(150, 0.8, 1))
    text = drift_of(FLAT, dependent(150, 0.8, 1), method=method)
    assert "2 columns together: " in text
    assert "the rank correlation of column 0 and column 1 is 0.8" in text
    assert not drift_of(FLAT, dependent(150, 0.0, 2), method=method)


@pytest.mark.parametrize("method", ["wasserstein", "js", "energy", "mmd", "c2st"])
@pytest.mark.parametrize("draw", ["normal", "tied"])
def test_one_column_is_judged_by_each_method(method, draw):
    """A shift is found, with its effect size and p-value; a sample without one passes."""
    rng = np.random.default_rng(8)
    a, b, c = (rng.normal(size=100) if draw == "normal" else rng.poisson(1.5, 100) for _ in "abc")
    assert not drift_of(a, b, method=method)
    assert "(p = 0.00" in drift_of(a, np.maximum(c, b) + 0.9, method=method)


def test_few_values_far_away_do_not_hide_a_drift_nor_overflow():
    """Heavy tails, and values at the ends of what floats hold."""
    far = np.concatenate([FLAT, [[1e308, -1e308], [-1e308, 1e308]]])
    for method in ("mmd", "c2st", "energy"):
        assert not drift_of(far, far[::-1], method=method)
    assert "MMD" in drift_of(far, far[:150] + 1, method="mmd")
    for method in ("wasserstein", "energy", "js"):
        assert not drift_of(far[:, 0], far[::-1, 0], method=method)


def test_large_samples_are_thinned_out_and_the_message_says_so():
    """2,000 of 5,000 rows are drawn."""
    rng = np.random.default_rng(5)
    text = drift_of(rng.normal(size=300), rng.normal(0.6, size=5_000), method="energy")
    assert "5000 values against 300" in text  # the energy distance of one column needs no matrix
    text = drift_of(rng.normal(size=(300, 2)), rng.normal(0.6, size=(5_000, 2)), method="mmd")
    assert "5000 rows against 300, of which at most 2000 each were drawn at random" in text


@pytest.mark.parametrize("as_tensor", [False, True])
def test_embeddings_are_judged_as_vectors(as_tensor):
    """Two-dimensional data by kind=, and a column of a dict as it is."""
    moved = VECTORS[::-1] + 0.7
    if as_tensor:
        torch = pytest.importorskip("torch")
        before, moved = torch.tensor(VECTORS), torch.tensor(moved.copy())
    else:
        before = VECTORS
    assert not drift_of(before, before, kind="embeddings")
    assert "the mean moved by 0.7" in drift_of(before, moved, kind="embeddings")
    table = {"id": list("ab") * 50, "vector": before}
    assert "column 'vector': MMD" in drift_of(table, {**table, "vector": moved})
    lists = {"id": list("ab") * 50, "vector": np.asarray(VECTORS).tolist()}
    assert not drift_of(table, lists)


def test_predicted_probabilities_are_judged_by_class_confidence_and_vector():
    """A collapse to one class, and a loss of confidence with the same class."""
    assert not drift_of(PROBABILITIES, PROBABILITIES[::-1], kind="probabilities")
    collapsed = PROBABILITIES[:, [0, 1, 2]] * [4, 1, 1]
    collapsed /= collapsed.sum(1, keepdims=True)
    assert "column 'predicted_class'" in drift_of(PROBABILITIES, collapsed, kind="probabilities")
    unsure = 0.3 * PROBABILITIES + 0.7 / 3
    text = drift_of(PROBABILITIES, unsure, kind="probabilities")
    assert "column 'confidence'" in text
    assert "predicted_class" not in text
    energy = drift_of(PROBABILITIES, collapsed, kind="probabilities", method="energy")
    assert "column 'probabilities': energy" in energy


def test_texts_are_judged_by_the_users_embedding():
    """For a column, and for one of a table."""
    texts = ["a good answer", "bad", "so so"] * 30

    def embed(found):
        return np.array([["good" in text, "bad" in text] for text in found], dtype=float)

    other = ["a good answer", "bad", "bad"] * 30
    assert not drift_of(texts, texts[::-1], embed=embed)
    assert "MMD" in drift_of(texts, other, embed=embed)
    table = drift_of({"reply": texts}, {"reply": other}, embed={"reply": embed})
    assert "column 'reply': MMD" in table


def test_times_are_judged_by_their_position_and_their_order():
    """A later period, and rows in a different order."""
    assert not drift_of(HOURS, HOURS)
    later = [time + datetime.timedelta(hours=60) for time in HOURS]
    assert "KS distance 0.6" in drift_of(HOURS, later)
    shuffled = [HOURS[place] for place in np.random.default_rng(0).permutation(100)]
    assert "earlier than the row before them, instead of 0.0%" in drift_of(HOURS, shuffled)
    array = np.array(HOURS, dtype="M8[s]")
    assert "KS distance 0.6" in drift_of({"at": array}, {"at": array + np.timedelta64(60, "h")})
    with pytest.raises(Drifted, match="1 NaN or missing"):
        assert_no_drift(array, np.append(array, np.datetime64("NaT")))


def test_slices_find_a_drift_that_the_whole_hides():
    """By the name of a column, and by two sequences. Small groups are one slice."""
    x = RNG.normal(size=150)
    before = {"x": x, "plan": GROUPS}
    moved = {"x": x + 2 * (GROUPS == "b"), "plan": GROUPS}
    assert not drift_of(before, moved, threshold=0.4)
    text = drift_of(before, moved, slices="plan", threshold=0.4)
    assert "column 'x', in the reference's group number 2 by frequency of column 'plan'" in text
    assert "group number 1" not in text
    pair = drift_of(x, moved["x"], slices=(GROUPS, GROUPS), threshold=0.4)
    assert "the column, in the reference's group number 2 by frequency: KS" in pair
    assert not drift_of(before, before, slices=["plan"])


def test_missing_values_can_be_compared_instead_of_refused():
    """Their share is a test of its own, and the others are judged without them."""
    half = np.where(np.arange(150) % 5 == 0, np.nan, A)
    assert "30 NaN or missing" in drift_of(A, half)
    text = drift_of(A, half, missing="compare")
    assert "20.0% of the values are missing instead of 0.0%" in text
    assert not drift_of(half, half[::-1], missing="compare")
    table = {"x": half, "y": FLAT[:, 1]}
    assert not drift_of(table, table, missing="compare", method="mmd")
    nothing = drift_of(half, np.full(50, np.nan), missing="compare")
    assert "nothing but missing values: 50" in nothing


def test_thresholds_can_differ_by_method():
    """A dict by method; the accuracy of a classifier begins at 0.5."""
    moved = {"x": A + 0.6, "w": ["a", "b", "b"] * 50}
    before = {"x": A, "w": ["a", "a", "b"] * 50}
    text = drift_of(before, moved, threshold={"ks": 0.5})
    assert "column 'w'" in text
    assert "column 'x'" not in text
    assert drift_of(A, A + 0.6, method="c2st")
    assert not drift_of(A, A + 0.6, method="c2st", threshold=0.8)


@pytest.mark.parametrize(
    ("reference", "keywords", "message"),
    [
        (FLAT, {"kind": "vectors"}, "kind must be None, 'embeddings' or 'probabilities'"),
        (A, {"kind": "embeddings"}, "must be rows of numbers for kind='embeddings'"),
        (FLAT, {"kind": "probabilities"}, "do not add up to 1"),
        (VECTORS, {"kind": "embeddings", "method": "ks"}, "holds vectors, but method='ks' takes"),
        (A, {"missing": "ignore"}, "missing must be 'fail' or 'compare'"),
        (A, {"embed": 3}, "embed must be a function of a list of texts"),
        (A, {"embed": len}, "embed= takes a column of texts"),
        (["a", "b"] * 9, {"embed": lambda texts: [1]}, "a vector for each of 18 texts"),
        (FLAT, {"embed": len}, "embed must be a dict of functions by column for a table"),
        (A, {"slices": "plan"}, "slices must be a column's name, a list of names, or a pair"),
        (A, {"slices": (GROUPS, GROUPS[:9])}, "second part of slices= must be one group for each"),
        (A, {"slices": (np.arange(150), np.arange(150))}, "no group with 20 rows"),
        (A, {"threshold": {"t": 1}}, "threshold names 't' (str), which is not a method"),
        (A, {"threshold": 1, "method": "js"}, "threshold must be below 1 for method='js'"),
        (np.full((20, 2), 3.0), {"kind": "embeddings"}, "is constant"),
        (np.full((20, 2), np.inf), {"kind": "embeddings"}, "has 20 infinite among 20 values"),
        ({"v": np.zeros((4, 2, 2))}, {}, "must have one dimension, or two for vectors"),
    ],
)
def test_arguments_of_no_use_are_refused(reference, keywords, message):
    """Nothing passes for want of a judgement."""
    with pytest.raises(BadArgument) as caught:
        assert_no_drift(reference, reference, **keywords)
    assert message in str(caught.value)


def test_runs_and_loads_take_the_methods(example):
    """Options are passed on; vectors and texts of a run, and the replies of a load."""
    outcome = example.with_tests("""
        def score(x): return visit("model.predict", x)
        def predict():
            rows = [[score(i % 7), i % 5, i % 3] for i in range(60)]
            return {"vectors": rows, "replies": ["word " * int(row[0] + 1) for row in rows]}
        @chaos.register
        class Shift(Fault):
            site = "model.predict"
            def apply(self, visit): return visit.payload + 9
        shift = chaos.shift(at=range(30))
        @shift
        def test_vectors(mlchaos):
            mlchaos.run(predict).assert_no_drift(key="vectors", kind="embeddings", method="energy")
        @shift
        def test_texts(mlchaos): mlchaos.run(predict).assert_no_text_drift(key="replies")
        @shift
        def test_load(mlchaos):
            load = mlchaos.serve(score).drive([i % 7 for i in range(60)])
            load.assert_no_drift(method="wasserstein")
        @shift
        def test_replies(mlchaos):
            load = mlchaos.serve(score).drive([i % 7 for i in range(60)])
            load.assert_no_text_drift(by=lambda reply: "word " * int(reply.value + 1))
        @chaos.shift(at=3)
        def test_passes(mlchaos):
            run = mlchaos.run(predict)
            run.assert_no_drift(key="vectors", kind="embeddings")
            run.assert_no_text_drift(key="replies")
    """).run(passed=1, failed=4)
    outcome.has("Drifted: the column: energy coefficient", "Drifted: the column: Wasserstein")
    outcome.has("length in words: median ")
