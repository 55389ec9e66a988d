"""``corrupt_batch`` on everything that batches are made of. (needs torch)"""

from __future__ import annotations

import collections
import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlchaos import assert_same_state, faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.errors import PayloadMismatch

faults.load()

Pair = collections.namedtuple("Pair", "x y")


@dataclasses.dataclass(frozen=True)
class Record:
    """A batch as a frozen dataclass."""

    x: Any
    y: Any


class Encoding(collections.UserDict):
    """A batch as tokenizers return it."""


def corrupted(batch, seed=0, **keywords):
    """The batch behind one strike."""
    with Controller(Schedule((create("corrupt_batch", at=0, **keywords),), seed)) as controller:
        return controller.visit("data.batch", batch)


def x():
    """A field of floats."""
    return torch.arange(1.0, 13).reshape(4, 3)


def y():
    """A field of labels."""
    return torch.tensor([0, 1, 2, 3])


CONTAINERS = [
    lambda a, b: (a, b),
    lambda a, b: [a, b],
    lambda a, b: {"x": a, "y": b},
    lambda a, b: Pair(a, b),
    lambda a, b: Record(a, b),
    lambda a, b: Encoding({"x": a, "y": b}),
    lambda a, b: {"inputs": {"deep": [a, "text", None]}, "labels": b, "id": 7},
]
KINDS = ["nan", "inf", "zero", "noise", "scale", "flip_sign", "shuffle_labels"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("numpy", [False, True])
def test_the_copy_is_changed_and_the_original_never(container, kind, numpy):
    """Same types and shapes all the way; the untouched field is the same object."""
    a, b = (x().numpy(), y().numpy()) if numpy else (x(), y())
    batch = container(a, b)
    before = copy.deepcopy(batch)
    after = corrupted(batch, kind=kind)
    assert_same_state(batch, before)
    assert type(after) is type(batch)
    with pytest.raises(AssertionError):
        assert_same_state(after, batch)
    hit, kept = [b, a] if kind == "shuffle_labels" else [a, b]
    assert any(found is kept for found in flat(after))
    assert not any(found is hit for found in flat(after))


def flat(value):
    """Every object in a batch."""
    if isinstance(value, (dict, Encoding)):
        value = list(value.values())
    elif dataclasses.is_dataclass(value):
        value = [value.x, value.y]
    return (
        [leaf for child in value for leaf in flat(child)]
        if isinstance(value, (list, tuple))
        else [value]
    )


@given(
    st.floats(0.01, 1),
    st.integers(0, 2**32),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_the_share_that_was_asked_for_is_hit_and_at_least_one(share, seed, dtype):
    """Counted exactly."""
    after = corrupted(torch.ones(10, 10, dtype=dtype), seed, kind="nan", fraction=share)
    assert int(after.isnan().sum()) == max(1, round(share * 100))
    assert after.dtype == dtype


@given(st.sampled_from(KINDS), st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_bits(kind, seed):
    """Twice, and for torch as for NumPy."""
    batch = {"x": x(), "y": y()}
    once, again = (corrupted(batch, seed, kind=kind, fraction=0.5) for _ in range(2))
    assert_same_state(once, again)
    if kind != "noise":
        assert_same_state(
            corrupted({"x": x().numpy(), "y": y().numpy()}, seed, kind=kind, fraction=0.5)["x"],
            once["x"].numpy(),
        )


@given(st.integers(0, 2**32), st.floats(0.01, 1))
def test_shuffled_labels_are_the_same_labels_in_other_places(seed, share):
    """Nothing is lost; exactly the share moves."""
    labels = torch.arange(50)
    after = corrupted((torch.ones(50, 2), labels), seed, kind="shuffle_labels", fraction=share)[1]
    assert sorted(after.tolist()) == labels.tolist()
    assert int((after != labels).sum()) == max(2, round(share * 50))


def test_noise_and_scale_go_by_the_magnitude():
    """Noise is in units of the field's own spread."""
    field = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 5
    noisy = corrupted(field, kind="noise", magnitude=2.0)
    assert float((noisy - field).std()) == pytest.approx(10, rel=0.05)
    assert torch.equal(corrupted(field, kind="scale", magnitude=3.0), field * 3)
    assert torch.equal(corrupted(field, kind="scale"), field * 1000)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64])
@pytest.mark.parametrize("kind", ["saturate", "noise", "scale", "flip_sign", "zero"])
def test_numbers_that_torch_hardly_computes_with_are_corrupted_or_refused(dtype, kind):
    """Those of 8 bits by way of float32; of complex ones, none is the greatest."""
    batch = x().to(dtype)
    if kind == "saturate" and dtype.is_complex:
        with pytest.raises(
            PayloadMismatch, match="holds complex numbers, which have no greatest value"
        ):
            corrupted(batch, kind=kind)
        return
    after = corrupted(batch, kind=kind, **({"magnitude": 2.0} if kind == "scale" else {}))
    assert after.dtype == dtype
    wide = {
        "saturate": torch.full((4, 3), 12.0),
        "scale": x() * 2,
        "flip_sign": -x(),
        "zero": x() * 0,
    }
    assert (after.cfloat() != x()).any()
    assert kind == "noise" or torch.equal(after, wide[kind].to(dtype))


def test_a_type_without_infinity_is_refused():
    """Rather than given its greatest number."""
    with pytest.raises(PayloadMismatch, match="is of a type that has no inf"):
        corrupted(x().to(torch.float8_e4m3fn), kind="inf")


@pytest.mark.parametrize("fields", ["x", ["x"], ["x", "nested.z"], "nested"])
def test_fields_are_chosen_by_name_and_path(fields):
    """Only what was named is hit."""
    batch = {"x": x(), "w": x(), "nested": {"z": x()}}
    after = corrupted(batch, fields=fields)
    assert after["w"] is batch["w"]
    named = (
        {"x"} if fields in ("x", ["x"]) else {"nested"} if fields == "nested" else {"x", "nested"}
    )
    assert bool(after["x"].isnan().all()) == ("x" in named)
    assert bool(after["nested"]["z"].isnan().all()) == ("nested" in named)


def test_fields_are_chosen_by_position():
    """The positions are those of ``for x, y in loader``."""
    after = corrupted((x(), x()), fields=1)
    assert not after[0].isnan().any()
    assert after[1].isnan().all()


def test_gradients_and_flags_survive():
    """A batch that wants gradients still does; a read-only array is copied."""
    field = x().requires_grad_()
    assert corrupted(field, kind="zero").requires_grad
    frozen = np.ones(5)
    frozen.setflags(write=False)
    assert np.isnan(corrupted(frozen)).all()
    assert corrupted(torch.ones(4, 6).t()[1:], kind="zero").shape == (5, 4)


@pytest.mark.parametrize(
    ("batch", "keywords", "message"),
    [
        (
            {"y": y()},
            {},
            "found no floating-point values in the batch dict(y: int64[4]). Name them with fields=",
        ),
        (
            {"x": x(), "y": y()},
            {"fields": "y"},
            "cannot change the field 'y' of the batch dict(x: float32[4, 3], y: int64[4]): it is "
            "not floating",
        ),
        (
            {"x": x()},
            {"fields": "z"},
            "found no field 'z' with numbers in the batch dict(x: float32[4, 3])",
        ),
        ("text", {}, "found no floating-point values in the batch str"),
        (
            torch.ones(0, 3),
            {"fields": None},
            "found no floating-point values in the batch float32[0, 3]",
        ),
        (
            {"x": torch.ones(3, 3).to_sparse()},
            {"fields": "x"},
            "it is a tensor of layout torch.sparse_coo",
        ),
        (
            (x(), torch.tensor([1])),
            {"kind": "shuffle_labels"},
            "needs two samples or more, got int64[1]",
        ),
        (x(), {"kind": "shuffle_labels"}, "found no labels"),
    ],
)
def test_a_batch_that_the_fault_cannot_work_on_is_an_error_of_its_own(batch, keywords, message):
    """It names the fault, the field, shapes and dtypes: never a silent nothing."""
    with pytest.raises(PayloadMismatch) as caught:
        corrupted(batch, **keywords)
    assert message in str(caught.value)
