"""Test what faults of contributions do to each kind of tensor and collective (needs torch)."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.distributed as dist

from pytest_mlchaos import Schedule, faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.errors import BadArgument, PayloadMismatch
from pytest_mlchaos.oracles.state import first_difference
from pytest_mlchaos.sites import collectives
from pytest_mlchaos.testing import strike

faults.load()
ATTRIBUTES = {"rank": 1, "world_size": 2, "op": "all_reduce", "step": 0, "sequence": 0}
TYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool, torch.complex64),
]


def struck(name, *tensors, seed=0, **keywords):
    """Return what arrives of a contribution, or the error."""
    fault = create(name, rank=1, at=0, **keywords)
    result = strike(fault, [list(tensors)], seed=seed, attributes=ATTRIBUTES)
    (outcome,) = result.outcomes
    return outcome, len(result.journal)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    "name",
    ["lost_contribution", "duplicated_contribution", "partial_gradient", "corrupt_contribution"],
)
def test_each_type_of_number_keeps_its_type_and_shape(name, dtype):
    """The contribution of the rank itself stays as it was."""
    given = torch.tensor([[1, 1], [0, 1]]).to(dtype)
    before = given.clone()
    arrived, strikes = struck(name, given)
    assert first_difference(given, before) is None
    same = dtype == torch.bool and name == "duplicated_contribution"  # true counts once
    assert strikes == (not same)
    if not same:
        assert (arrived[0].dtype, arrived[0].shape) == (dtype, given.shape)
        assert first_difference(arrived[0], before) is not None


def test_what_arrives_of_a_part_is_the_beginning_of_all_tensors():
    """Elements are counted through the tensors of a coalesced collective."""
    one, other = torch.arange(1.0, 5.0).reshape(2, 2), torch.arange(5.0, 11.0)
    arrived, _ = struck("partial_gradient", one, other, fraction=0.6)
    assert [part.tolist() for part in arrived] == [[[1, 2], [3, 4]], [5, 6, 0, 0, 0, 0]]
    arrived, _ = struck("partial_gradient", one, other, fraction=0.11)
    assert [part.tolist() for part in arrived] == [[[1, 0], [0, 0]], [0] * 6]


def test_a_contribution_of_one_element_is_lost_as_a_whole():
    """It has no half."""
    arrived, _ = struck("partial_gradient", torch.ones(()), fraction=0.9)
    assert arrived[0].tolist() == 0


@pytest.mark.parametrize("name", ["lost_contribution", "partial_gradient", "corrupt_contribution"])
def test_tensors_in_another_order_of_memory_keep_it(name):
    """A backend reads the memory as it is."""
    given = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last) + 1
    arrived, _ = struck(name, given)
    assert arrived[0].stride() == given.stride()
    part = torch.arange(12.0).reshape(3, 4).t()[::2]
    arrived, _ = struck(name, part + 1)
    assert arrived[0].shape == part.shape


@pytest.mark.parametrize("name", ["lost_contribution", "partial_gradient", "corrupt_contribution"])
def test_empty_tensors_have_nothing_to_lose(name):
    """Beside others they stay as they are. A collective of nothing else is not struck."""
    arrived, strikes = struck(name, torch.empty(0), torch.ones(2))
    assert (arrived[0].shape, strikes) == ((0,), 1)
    _, strikes = struck(name, torch.empty(0, 3))
    assert strikes == 0


def test_nan_that_is_counted_twice_is_the_same():
    """It is not a strike, and a lost NaN is one."""
    nan = torch.tensor([float("nan")])
    assert struck("duplicated_contribution", nan)[1] == 0
    assert struck("lost_contribution", nan)[1] == 1


def flipped(before, after):
    """Return the number of bits that differ."""
    old, new = (t.contiguous().reshape(-1).view(torch.uint8).tolist() for t in (before, after))
    return sum(bin(a ^ b).count("1") for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("bits", [1, 3, 16])
def test_as_many_bits_are_flipped_as_asked_for(bits):
    """Distinct ones, and the same ones with the same seed."""
    given = torch.ones(4, dtype=torch.float16)
    (arrived,), _ = struck("corrupt_contribution", given, bits=bits)
    assert flipped(given, arrived) == bits
    again = struck("corrupt_contribution", given, bits=bits)[0][0]
    assert flipped(arrived, again) == 0
    assert flipped(arrived, struck("corrupt_contribution", given, bits=bits, seed=1)[0][0])


def test_no_more_bits_are_flipped_than_there_are():
    """A truth value has one, and stays a truth value."""
    given = torch.tensor([True, False, True])
    (arrived,), _ = struck("corrupt_contribution", given, bits=16)
    assert arrived.tolist() == [False, True, False]


def test_the_bit_that_is_asked_for_is_flipped():
    """In each type it is counted from the lowest one."""
    (arrived,), _ = struck("corrupt_contribution", torch.ones(1), bit=31)
    assert arrived.tolist() == [-1]
    (arrived,), _ = struck("corrupt_contribution", torch.zeros(1, dtype=torch.int64), bit=5)
    assert arrived.tolist() == [32]


def test_a_bit_that_the_type_lacks_is_refused():
    """The type is named."""
    outcome, _ = struck("corrupt_contribution", torch.ones(1, dtype=torch.float16), bit=20)
    assert isinstance(outcome, PayloadMismatch)
    assert "found no bit 20 in a tensor [1] of float16" in str(outcome)


def test_a_site_that_is_not_a_collective_is_refused():
    """A desync needs one."""
    with pytest.raises(BadArgument, match="site must be 'collective'"):
        create("desync", site="train.step", at=0)


# -- real collectives, in a group of one -----------------------------------------------------------


@pytest.fixture
def group():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@contextlib.contextmanager
def armed(name, **keywords):
    """Let a fault strike at the first reducing collective."""
    fault = create(name, **{"rank": 0, "at": 0, **keywords})
    with Patches() as patches, Controller(Schedule((fault,))) as controller:
        controller.attributes = {"rank": 0, "world_size": 1}
        collectives.arm(controller, patches, fault.key)
        yield controller


OPERATIONS = ["SUM", "AVG", "MAX", "MIN", "PRODUCT"]


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("call", ["all_reduce", "reduce", "reduce_scatter", "functional"])
def test_a_second_copy_counts_as_the_reduction_says(group, op, call):
    """It doubles a sum and an average, squares a product, and changes no maximum."""
    if op == "AVG" and call != "functional":
        pytest.skip("gloo has no average here")
    kind, given, result = getattr(dist.ReduceOp, op), torch.tensor([3.0, -5.0]), torch.zeros(2)
    with armed("duplicated_contribution") as controller, contextlib.suppress(RuntimeError):
        if call == "all_reduce":
            dist.all_reduce(given, op=kind)
            result = given
        elif call == "reduce":
            dist.reduce(given, 0, op=kind)
            result = given
        elif call == "reduce_scatter":
            dist.reduce_scatter_tensor(result, given, op=kind)
            assert given.tolist() == [3, -5]
        else:
            from torch.distributed._functional_collectives import all_reduce

            result = all_reduce(given, op.lower(), dist.group.WORLD)
            result = result.wait() if hasattr(result, "wait") else result
    expected = {"PRODUCT": [9, 25], "MAX": [3, -5], "MIN": [3, -5]}.get(op, [6, -10])
    assert result.tolist() == expected
    assert len(controller.journal) == (expected != [3, -5])


def test_the_buffer_of_the_rank_stays_where_the_result_is_not_put_there(group):
    """A reduce-scatter has a buffer for its result. An all-reduce has one for both."""
    given, result = torch.ones(2), torch.zeros(2)
    with armed("lost_contribution"):
        dist.reduce_scatter_tensor(result, given)
        dist.all_reduce(given)  # not struck
    assert (given.tolist(), result.tolist()) == ([1, 1], [0, 0])
    with armed("lost_contribution"):
        dist.all_reduce(given)
    assert given.tolist() == [0, 0]


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("call", ["all_reduce", "reduce_scatter"])
def test_a_wrong_result_stays_wrong(group, call, wait):
    """Also after the caller has waited, when gloo copies the result."""
    given, result = torch.ones(1), torch.zeros(1)
    with armed("corrupt_result", bit=31):
        if call == "all_reduce":
            work = dist.all_reduce(given, async_op=wait)
            result = given
        else:
            work = dist.reduce_scatter_tensor(result, given, async_op=wait)
        if wait:
            work.wait()
            work.wait()
            assert work.is_completed()
    assert result.tolist() == [-1]


def test_coalesced_collectives_are_one_contribution(group):
    """Its parts are struck together."""
    parts = [torch.ones(2), torch.ones(3)]
    with armed("partial_gradient", fraction=0.5) as controller:
        dist.all_reduce_coalesced(parts)
    assert [part.tolist() for part in parts] == [[1, 1], [0, 0, 0]]
    assert len(controller.journal) == 1


def test_a_group_of_one_cannot_part(group):
    """There is nothing to skip."""
    with armed("desync") as controller:
        dist.all_reduce(torch.ones(1))
    assert len(controller.journal) == 0
