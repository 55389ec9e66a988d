"""``assert_same_state`` on torch, pandas and pyarrow. (needs torch)"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mlchaos import assert_same_state
from pytest_mlchaos.errors import StateDiffers
from pytest_mlchaos.oracles.state import first_difference

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")


def trained():
    """A model and its optimizer after a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_modules_and_optimizers_are_compared_by_their_state():
    """Whatever has a state_dict is its state_dict, and mixing both works."""
    model, optimizer = trained()
    twin, other = trained()
    assert_same_state({"m": model, "o": optimizer}, {"m": twin, "o": other})
    assert_same_state(model, copy.deepcopy(model))
    with torch.no_grad():  # not the trained weight: that is another one on another processor
        model[2].weight[0, 1], twin[2].weight[0, 1] = 0.3, 0.8
    with pytest.raises(
        StateDiffers,
        match=r"model\['2.weight'\]\[0, 1\]: differs by 62.5 %; 1 of 4 entries differ \(float32\[1, 4\]\)",
    ):
        assert_same_state(model, twin, name="model")
    other.param_groups[0]["lr"] = 0.2
    with pytest.raises(StateDiffers, match=r"\['param_groups'\]\[0\]\['lr'\]: differs by 50 %"):
        assert_same_state(optimizer, other)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int8, torch.bool]
)
def test_tensors_of_any_dtype_are_compared(dtype):
    """Equal ones are equal, and one element that differs is found."""
    a = torch.tensor([0, 1, 1, 0]).to(dtype)
    b = a.clone()
    assert_same_state(a, b)
    b[2] = 0
    with pytest.raises(
        StateDiffers,
        match=r"state\[2\]: differs from 0; 1 of 4 entries differ \((torch\.)?\w+\[4\]\)",
    ):
        assert_same_state(a, b)


def test_special_tensors_are_compared_too():
    """NaN, sparse, 0-d, requires_grad; shapes and layouts must agree."""
    assert_same_state(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
    assert_same_state(torch.eye(3).to_sparse(), torch.eye(3).to_sparse())
    assert_same_state(torch.tensor(1.0, requires_grad=True), torch.tensor(1.0))
    with pytest.raises(StateDiffers, match=r"state\[1, 1\]: differs by 50 %"):
        assert_same_state(
            torch.eye(3).to_sparse(), torch.diag(torch.tensor([1.0, 2.0, 1.0])).to_sparse()
        )
    with pytest.raises(StateDiffers, match=r"torch\.sparse_coo instead of"):
        assert_same_state(torch.eye(3).to_sparse(), torch.eye(3))
    with pytest.raises(StateDiffers, match=r"float32\[3\] instead of float32\[1, 3\]"):
        assert_same_state(torch.ones(3), torch.ones(1, 3))
    with pytest.raises(StateDiffers, match="Tensor instead of ndarray"):
        assert_same_state(torch.ones(3), np.ones(3))


def test_layouts_and_buffers_that_are_rarely_met_are_compared():
    """CSR, nested, and buffers that no state_dict holds; a table with two levels of index."""
    csr = torch.eye(3).to_sparse_csr()
    assert_same_state(csr, csr.clone())
    with pytest.raises(StateDiffers, match=r"differs by 50 %"):
        assert_same_state(csr, (torch.eye(3) * 2).to_sparse_csr())
    nested = [torch.nested.nested_tensor([torch.ones(2), torch.ones(n)]) for n in (3, 3, 4)]
    assert_same_state(nested[0], nested[1])
    with pytest.raises(StateDiffers):
        assert_same_state(nested[0], nested[2])
    model = nn.Linear(1, 1)
    model.register_buffer("hidden", torch.zeros(2), persistent=False)
    twin = copy.deepcopy(model)
    twin.hidden += 1
    with pytest.raises(StateDiffers, match=r"buffers\['hidden'\]"):
        assert_same_state(model, twin)
    table = frame().set_index(["i", "s"])
    assert_same_state(table, table.copy())
    with pytest.raises(StateDiffers):
        assert_same_state(table, frame().assign(i=[1, 2, 9]).set_index(["i", "s"]))


def test_generators_are_compared_by_their_state():
    """A lost data order shows in the generator."""
    assert_same_state(torch.Generator().manual_seed(1), torch.Generator().manual_seed(1))
    with pytest.raises(StateDiffers):
        assert_same_state(torch.Generator().manual_seed(1), torch.Generator().manual_seed(2))


def frame():
    """A table with every common kind of column."""
    return pd.DataFrame(
        {
            "n": [1.0, None, 3.0],
            "i": [1, 2, 3],
            "s": ["a", None, "c"],
            "t": pd.date_range("2026-01-01", periods=3),
        },
        index=[5, 6, 7],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f.assign(i=[1, 2, 4]),
            "state['i'][2]: differs by 1; 1 of 3 entries differ (int64[3])",
        ),
        (
            lambda f: f.assign(n=[1.0, 2.0, 3.0]),
            "state['n'][1]: 1 of 3 entries are missing on one side only",
        ),
        (lambda f: f.assign(s=["a", None, "d"]), "state['s'][2]: texts differ"),
        (lambda f: f.rename(columns={"i": "j"}), "state.columns[1]: texts differ"),
        (lambda f: f[["i", "n", "s", "t"]], "state.columns[0]: texts differ"),
        (lambda f: f.reset_index(drop=True), "state.index[0]: differs: it is 0"),
        (lambda f: f.astype({"i": "float64"}), "state['i']: dtype float64 instead of int64"),
        (lambda f: f.iloc[:2], "state: shape (2, 4) instead of (3, 4)"),
        (lambda f: f.assign(t=f.t + pd.Timedelta("1s")), "state['t'][0]: 3 of 3 entries differ"),
    ],
)
def test_tables_are_compared_by_columns_index_and_missing_values(change, message):
    """The column, the row, and the kind of difference are named."""
    assert_same_state(frame(), frame())
    assert_same_state(frame()["s"], frame()["s"])
    with pytest.raises(StateDiffers) as caught:
        assert_same_state(change(frame()), frame())
    assert message in str(caught.value)


def test_arrow_tables_are_compared():
    """Equal or not."""
    table = pa.table({"a": [1, 2]})
    assert_same_state(table, pa.table({"a": [1, 2]}))
    with pytest.raises(StateDiffers, match="not equal"):
        assert_same_state(table, pa.table({"a": [1, 3]}))


class Wrapped(torch.Tensor):
    """A tensor made of two others, as a quantized weight is of integers and scales."""

    @staticmethod
    def __new__(cls, codes, scale):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

    def __init__(self, codes, scale):
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self):
        return ["codes", "scale"], {"bits": 8}

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError(f"{function} is not for this tensor")


class Opaque(Wrapped):
    """A tensor that says nothing about what it is made of."""

    __tensor_flatten__ = None


class Tagged(torch.Tensor):
    """A subclass with values of its own."""


def test_tensors_that_are_made_of_others_are_compared_by_their_parts():
    """Scales that differ are named by their path; equal parts are equal."""
    codes = torch.ones(2, dtype=torch.int8)
    one, same, other = (Wrapped(codes.clone(), torch.tensor([scale])) for scale in (0.5, 0.5, 0.25))
    assert first_difference(one, same) is None
    assert "state.scale[0]: differs" in first_difference(one, other)


def test_a_tensor_that_cannot_be_read_is_said_to_be():
    """A tensor without readable values is reported as not comparable, and nothing is raised."""
    codes = torch.ones(2, dtype=torch.int8)
    for one, other in [
        (Opaque(codes, codes), Opaque(codes, codes)),
        (torch.ones(2, device="meta"), torch.ones(2, device="meta")),
    ]:
        assert "which cannot be compared" in first_difference([one], [other])


@pytest.mark.parametrize(
    "make",
    [
        lambda value: torch.tensor([1.0, value]).as_subclass(Tagged),
        lambda value: torch.tensor([0.0, value]).to_sparse(),
        lambda value: torch.tensor([[0.0, value]]).to_sparse_csr(),
        lambda value: torch.quantize_per_tensor(torch.tensor([1.0, value]), 0.1, 0, torch.qint8),
        lambda value: torch.quantize_per_channel(
            torch.tensor([[1.0, value]]), torch.tensor([0.1]), torch.tensor([0]), 0, torch.qint8
        ),
        lambda value: torch.nested.nested_tensor([torch.ones(1), torch.tensor([0.0, value])]),
        lambda value: torch.nested.nested_tensor(
            [torch.ones(1), torch.tensor([0.0, value])], layout=torch.jagged
        ),
        lambda value: torch.tensor([1.0, value]).to(torch.float8_e5m2),
        lambda value: torch.tensor([1, int(value)], dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        lambda value: torch.tensor([1j, value]).conj(),
        lambda value: torch.tensor([1j, value * 1j]).conj().imag,
    ],
    ids=[
        "subclass",
        "sparse",
        "csr",
        "quantized",
        "per channel",
        "nested",
        "jagged",
        "float8",
        "float4",
        "conjugate",
        "negative",
    ],
)
def test_unusual_tensors_are_compared(make):
    """Two with the same values are the same, and two with other values differ."""
    assert first_difference(make(2.0), make(2.0)) is None
    assert "differ" in first_difference(make(2.0), make(3.0))
