"""``assert_same_state`` finds the first difference, and none where there is none."""

from __future__ import annotations

import collections
import dataclasses
import functools
import random
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_mlchaos import assert_same_state
from pytest_mlchaos.errors import BadArgument, StateDiffers
from pytest_mlchaos.oracles.state import first_difference

NAN = float("nan")


@dataclasses.dataclass
class Config:
    """A record."""

    lr: float
    name: str
    extra: Any = None


class Opaque:
    """An object without equality."""

    def __init__(self, value):
        self.value = value


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda children: (
        st.lists(children) | st.dictionaries(st.text(), children) | st.tuples(children, children)
    ),
    max_leaves=10,
)


@given(PLAIN)
def test_a_state_is_the_same_as_its_copy(state):
    """NaN included."""
    import copy

    assert_same_state(copy.deepcopy(state), state)


@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(max_dims=3)))
def test_an_array_is_the_same_as_its_copy(array):
    """The array has any dtype."""
    assert_same_state(array.copy(), array)


DIFFERENT = [
    (1, 2, "state: differs by 1 (int)"),
    (1.0, 1.5, "state: differs by 0.5 (float)"),
    (1.0, 1.0004842313, "state: differs by 0.000484 (float)"),
    (0, 12345678, "state: differs: it is 0 (int)"),
    (np.uint8(0), np.uint8(255), "state: differs: it is 0 (uint8)"),
    (
        np.array([0, 1]),
        np.array([12345678, 3]),
        "state[0]: differs: it is 0; 2 of 2 entries differ, by at most 100 % (int64[2])",
    ),
    (
        np.array([1.0, 2.0]),
        np.array([1.00123456, 5.98765]),
        "state[0]: differs by 0.00123; 2 of 2 entries differ, by at most 66.6 % (float64[2])",
    ),
    (1.0, NAN, "state: differs by nan (float)"),
    (1, "1", "state: int instead of str"),
    (True, 1, "state: bool instead of int"),
    (None, 0, "state: NoneType instead of int"),
    ("model-a", "model-b", "state: texts differ from position 6 on (lengths 7 and 7)"),
    ([1, 2], (1, 2), "state: list instead of tuple"),
    ([1, 2, 3], [1, 2], "state: 3 entries instead of 2"),
    ([1, 5, 3], [1, 2, 4], "state[1]: differs by 3 (int)"),
    ([2, 3], [1, 2, 3], "state: 2 entries instead of 3"),
    (((2, 3), 1), ((1, 2, 3), 1), "state[0]: 2 entries instead of 3"),
    (collections.deque([2, 3]), collections.deque([1, 2, 3]), "state: 2 entries instead of 3"),
    ({"a": 1}, {"a": 1, "b": 2}, "state['b']: missing"),
    ({"a": 1, "b": 2}, {"a": 1}, "state['b']: not expected"),
    ({"m": {"w": [0, 1]}}, {"m": {"w": [0, 2]}}, "state['m']['w'][1]: differs by 1 (int)"),
    ({1, 2}, {2, 3}, "state: 1 elements too many, 1 missing (set)"),
    (Config(0.1, "x"), Config(0.2, "x"), "state.lr: differs by 50 % (float)"),
    (SimpleNamespace(step=3), SimpleNamespace(step=4), "state.step: differs by 1 (int)"),
    (Opaque([1]), Opaque([2]), "state.value[0]: differs by 1 (int)"),
    (collections.deque([1]), collections.deque([2]), "state[0]: differs by 1 (int)"),
    (random.Random(1), random.Random(2), "differs by"),
    (np.random.RandomState(1), np.random.RandomState(2), "differ"),
    (np.random.default_rng(1), np.random.default_rng(2), "differ"),
    (len, max, "state: not equal"),
    (np.zeros(3), np.zeros(4), "state: float64[3] instead of float64[4]"),
    (np.zeros(3), np.zeros(3, "f4"), "state: float64[3] instead of float32[3]"),
    (
        np.array([1.0, 2, 3]),
        np.array([1.0, 4, 7]),
        "state[1]: differs by 50 %; 2 of 3 entries differ, by at most 57.1 % (float64[3])",
    ),
    (
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 2], [3, 9]]),
        "state[1, 1]: differs by 5; 1 of 4 entries differ (int64[2, 2])",
    ),
    (np.array([2**63 - 1]), np.array([2**63 - 2]), "state[0]: differs by 1"),
    (np.array([0], "u1"), np.array([255], "u1"), "state[0]: differs: it is 0"),
    (
        np.array([1.0, NAN]),
        np.array([1.0, 2.0]),
        "state[1]: is finite on one side only; 1 of 2 entries differ (float64[2])",
    ),
    (np.array(["a", "b"]), np.array(["a", "c"]), "state[1]: 1 of 2 entries differ (<U1[2])"),
    (np.array([True, False]), np.array([True, True]), "state[1]: differs: it is 0"),
    (
        np.array([{"a": 1}], dtype=object),
        np.array([{"a": 2}], dtype=object),
        "state[0]['a']: differs by 1",
    ),
    (np.float32(1), np.float32(2), "state: differs by 50 % (float32)"),
    (2**60, 2**60 + 1, "state: differs by 1 (int)"),
    (Decimal("1.1"), Decimal("1.2"), "state: differs by 0.1 (Decimal)"),
    (np.array([1.0, 2.0]), np.array([1.0, np.inf]), "state[1]: is finite on one side only"),
]


@pytest.mark.parametrize(("actual", "expected", "message"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_the_first_difference_is_named_by_its_path_and_size(actual, expected, message):
    """The message says where, by how much, and in how many entries. The reverse also differs."""
    with pytest.raises(StateDiffers) as caught:
        assert_same_state(actual, expected)
    assert message in str(caught.value)
    with pytest.raises(StateDiffers):
        assert_same_state(expected, actual)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ([NAN, 1.0], [NAN, 1.0]),
        (np.array([NAN, np.inf]), np.array([NAN, np.inf])),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (1, 1.0),
        (np.int64(3), 3),
        (Opaque({"x": 1}), Opaque({"x": 1})),
        (random.Random(3), random.Random(3)),
        (np.random.default_rng(3), np.random.default_rng(3)),
    ],
)
def test_states_that_mean_the_same_are_the_same(actual, expected):
    """NaN equals NaN; the order of a dict and the width of a Python number do not matter."""
    assert_same_state(actual, expected)


def test_tolerances_are_those_of_allclose():
    """``atol + rtol * abs(expected)``; NaN is never near a number."""
    assert_same_state(
        {"w": np.array([1.0, 100.0]), "l": 1.0},
        {"w": np.array([1.01, 101.0]), "l": 1.01},
        rtol=0.011,
    )
    with pytest.raises(StateDiffers, match="1 of 2 entries differ"):
        assert_same_state(np.array([1.0, 100.0]), np.array([1.01, 101.0]), atol=0.5)
    with pytest.raises(StateDiffers):
        assert_same_state(np.array([NAN]), np.array([1.0]), atol=1e9)
    for finite, infinite in [(1.0, float("inf")), (np.ones(2), np.array([1.0, np.inf]))]:
        with pytest.raises(StateDiffers):
            assert_same_state(finite, infinite, rtol=0.1)
    with pytest.raises(BadArgument, match="0 or more"):
        assert_same_state(1, 1, rtol=-1)


def test_cycles_are_walked_once():
    """A model that holds its parent does not recurse for ever."""
    a, b = {"x": 1}, {"x": 1}
    a["self"], b["self"] = a, b
    assert_same_state(a, b)
    b["x"] = 2
    with pytest.raises(StateDiffers, match="differs by 1"):
        assert_same_state(a, b)


def test_no_value_of_the_users_data_is_in_a_message():
    """Reports are pasted into tickets."""
    for actual, expected in [
        ("s3cret-token", "other"),
        ([31337], [1]),
        (np.array([31337.0]), np.array([1.0])),
    ]:
        with pytest.raises(StateDiffers) as caught:
            assert_same_state(actual, expected)
        assert "31337" not in str(caught.value)
        assert "s3cret" not in str(caught.value)


# -- functions, methods and classes ----------------------------------------------------------------


def _adder(number, keyword=None):
    def add(value, default=keyword):
        return value + number

    return add


def _recursive(number):
    def down(count):
        return down(count - 1) + number if count else 0

    return down


def _class(number, text="x"):
    class Local:
        __slots__ = ("value",)
        name = text

        def __init__(self, value=0):
            self.value = value

        def get(self):
            return number

    return Local


class _Holder:
    def __init__(self, value):
        self.value = value

    def get(self):
        """Get it."""
        return self.value


CODE = {
    "lambda": lambda number: (
        (lambda value: value + 1) if number == 1 else (lambda value: value + 2)
    ),
    "attribute": lambda number: (
        (lambda value: value.one) if number == 1 else (lambda value: value.two)
    ),
    "type of a constant": lambda number: (lambda: 1) if number == 1 else (lambda: True),
    "inner": lambda number: (lambda: lambda: 1) if number == 1 else (lambda: lambda: 2),
    "closure": _adder,
    "default": lambda number: _adder(0, number),
    "recursive": _recursive,
    "method": lambda number: _Holder(number).get,
    "method of C": lambda number: [number].append,
    "local class": _class,
    "attribute of a local class": lambda number: _class(0, str(number)),
    "instance of a local class": lambda number: _class(number)(),
    "partial": lambda number: functools.partial(_adder(number)),
    "cache": lambda number: functools.lru_cache(_adder(number)),
    "static method": lambda number: staticmethod(_adder(number)),
    "property": lambda number: property(_adder(number)),
    "nested": lambda number: {"functions": [_adder(number)]},
}


@pytest.mark.parametrize("make", CODE.values(), ids=CODE)
def test_code_is_the_same_only_if_it_does_the_same(make):
    """Functions of one name may be others; those that are made twice alike are the same."""
    assert_same_state(make(1), make(1))
    with pytest.raises(StateDiffers):
        assert_same_state(make(1), make(2))


def test_names_tell_functions_and_classes_of_modules():
    """They are the same in another process; two of different names differ."""
    for value in (len, _adder, _Holder, _Holder.get, str.join):
        assert_same_state(value, value)
    for one, other in ((len, sum), (_adder, _recursive), (_Holder, dict), (str.join, str.split)):
        with pytest.raises(StateDiffers):
            assert_same_state(one, other)


class Sample:
    """One of a data set, which it knows."""

    def __init__(self, dataset, place):
        self.dataset = dataset
        self.place = place


def test_what_many_objects_share_is_compared_once():
    """Each sample of a list holds the data set of all: the cost grows with their number, not with
    its square.
    """

    class Row(int):
        looks = 0

        def __eq__(self, other):
            Row.looks += 1
            return int(self) == int(other)

        __hash__ = int.__hash__

    def samples():
        dataset = [Row(number) for number in range(50)]
        return [Sample(dataset, place) for place in range(50)]

    assert first_difference(samples(), samples()) is None
    assert 50 <= Row.looks <= 100


def test_a_difference_in_what_is_shared_is_found():
    """It is named where it is met first."""
    one, other = [1, 2], [1, 3]
    assert (
        first_difference([Sample(one, 0), Sample(one, 1)], [Sample(other, 0), Sample(other, 1)])
        == "state[0].dataset[1]: differs by 1 (int)"
    )


def test_the_texts_of_keys_are_made_for_differences_alone(monkeypatch):
    """To decide which keys may be shown takes longer than to compare their values."""
    asked = []
    monkeypatch.setattr(
        "pytest_mlchaos.oracles.state.key_text",
        lambda key, *_, **__: asked.append(key) or repr(key),
    )
    assert first_difference([{"id": 1, "t": 2}] * 5, [{"id": 1, "t": 2} for _ in range(5)]) is None
    assert asked == []
