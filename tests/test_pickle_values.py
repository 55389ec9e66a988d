"""Pickles are compared by value: a round trip may change what they share, but a lost value is a
difference.
"""

import collections
import io
import pickle

import numpy as np
import pytest

from pytest_mlchaos.crashes.pickle_values import pickle_digest


class Wrapper:
    """Stands for an array whose bytes follow in the file, behind some padding."""

    def __init__(self, array):
        self.shape, self.dtype, self.order = array.shape, array.dtype, "C"
        self.numpy_array_alignment_bytes = 16


class Interleaving(pickle._Pickler):
    """Writes arrays between its operations, as tools do that map them into memory."""

    def save(self, obj, *args, **keywords):
        if not isinstance(obj, np.ndarray) or obj.dtype.hasobject:
            return super().save(obj, *args, **keywords)
        super().save(Wrapper(obj), *args, **keywords)
        self.framer.commit_frame(force=True)
        padding = -(self.file.tell() + 1) % 16
        self.file.write(bytes([padding]) + b"\xff" * padding + obj.tobytes())
        return None


def interleaved(value):
    """Return what ``Interleaving`` writes."""
    file = io.BytesIO()
    pickler = Interleaving(file)
    pickler.file = file
    pickler.dump(value)
    return file.getvalue()


def digest(data):
    """Return the digest of a pickle whose texts name no files."""
    return pickle_digest(data, lambda text: None)


def state(**changes):
    """The state of a small model, with arrays, numbers and containers that share parts."""
    arrays = {
        "weights": np.arange(6.0).reshape(2, 3),
        "bias": np.arange(3.0),
        "labels": np.arange(4),
    }
    values = {
        "loss": np.float64(0.5),
        "classes": np.int64(3),
        "done": False,
        "names": {"a", "b", "c"},
        "none": None,
    }
    nested = {
        "history": collections.OrderedDict(epoch=[1, 2, 3]),
        "random": np.random.default_rng(0),
        "pair": ("Adam", b"raw"),
    }
    return {**arrays, **values, **nested, **changes}


CHANGES = {
    "an array": {"weights": np.ones((2, 3))},
    "a shape": {"weights": np.arange(6.0).reshape(3, 2)},
    "a dtype": {"labels": np.arange(4, dtype=np.float32)},
    "a number": {"loss": np.float64(0.25)},
    "a flag": {"done": True},
    "a member of a set": {"names": {"a", "b", "d"}},
    "a nested list": {"history": collections.OrderedDict(epoch=[1, 2])},
    "a generator": {"random": np.random.default_rng(1)},
    "one entry more": {"more": 1},
}
WRITERS = pytest.mark.parametrize(
    "write", [pickle.dumps, interleaved], ids=["pickle", "interleaved"]
)


@WRITERS
def test_a_round_trip_is_no_difference(write):
    """Loaded arrays have dtypes of their own, which are written out again."""
    data = write(state())
    again = write(pickle.loads(pickle.dumps(state())))
    assert data != again
    assert digest(data) == digest(again)


@WRITERS
@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_changed_value_is_a_difference(write, change):
    """Wherever it is."""
    assert digest(write(state())) != digest(write(state(**change)))


def test_sets_are_compared_without_their_order():
    """Texts are hashed anew in each process."""
    one, two = {0, 8}, {8, 0}
    assert list(one) != list(two)
    assert digest(pickle.dumps(one)) == digest(pickle.dumps(two))
    assert digest(pickle.dumps(frozenset(one))) == digest(pickle.dumps(frozenset(two)))


def test_several_pickles_in_one_file():
    """A log of results is written like this. The last pickle counts, too."""
    one, two = pickle.dumps(state()), pickle.dumps([np.int64(1)])
    assert digest(one + two) != digest(one)
    assert digest(one + two) != digest(one + pickle.dumps([np.int64(2)]))


@pytest.mark.parametrize(
    "data",
    [b"\x80\x04garbage", pickle.dumps(state())[:-20], interleaved(state())[:-30]],
    ids=["garbage", "cut", "cut array"],
)
def test_what_is_no_whole_pickle_is_compared_by_its_bytes(data):
    """Torn files are what the explorer makes."""
    assert digest(data) == data


def test_a_value_within_itself():
    """It ends."""
    values = [1, 2]
    values.append(values)
    assert digest(pickle.dumps(values)) == digest(pickle.dumps(pickle.loads(pickle.dumps(values))))


def test_estimators_that_joblib_writes():
    """The real thing, where it is installed."""
    joblib = pytest.importorskip("joblib")
    one, two = io.BytesIO(), io.BytesIO()
    joblib.dump(state(), one)
    joblib.dump(joblib.load(io.BytesIO(one.getvalue())), two)
    assert one.getvalue() != two.getvalue()
    assert digest(one.getvalue()) == digest(two.getvalue())
