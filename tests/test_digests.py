"""Digests of what a step starts from: the same for the same contents, however they are held."""

from __future__ import annotations

import random

import pytest

from pytest_mlchaos.engine.digests import MAX_WHOLE_BYTES, digest, random_states
from pytest_mlchaos.processes.subprocess_runner import fresh_processes


def test_equal_contents_have_one_digest_and_others_another():
    """Containers are compared by content and order, and unknown types by their names."""
    assert digest({"a": [1.0, (2, "b")]}) == digest({"a": [1.0, (2, "b")]})
    values = [
        {},
        [],
        [[]],
        {"a": 1.0},
        {"a": 2.0},
        {"b": 1.0},
        [1.0, 2.0],
        [2.0, 1.0],
        "a",
        None,
        True,
        object(),
    ]
    assert len({digest(value) for value in values}) == len(values)


def test_a_tensor_is_digested_by_its_values_wherever_they_lie():
    """Copies, parameters, slices and other strides of one content agree; other shapes of memory
    with other values do not.
    """
    torch = pytest.importorskip("torch")
    tensor = torch.arange(36.0).reshape(6, 6)
    same = [
        tensor.clone(),
        torch.nn.Parameter(tensor),
        tensor.t().contiguous().t(),
        torch.cat([tensor, tensor])[6:],
    ]
    assert {digest(one) for one in same} == {digest(tensor)}
    changed = tensor.clone()
    changed[5, 5] += 1
    assert (
        len(
            {
                digest(one)
                for one in (tensor, tensor.t(), changed, -tensor, tensor.to(torch.bfloat16))
            }
        )
        == 5
    )
    # A counter may be any of these.
    assert digest(torch.tensor(3)) == digest(torch.tensor([3.0])) == digest(3.0)


@pytest.mark.parametrize("size", [MAX_WHOLE_BYTES // 4, MAX_WHOLE_BYTES])
def test_one_value_changes_the_digest_of_a_large_tensor(size):
    """Below and above the size from which on tensors are summed up."""
    torch = pytest.importorskip("torch")
    tensor = torch.ones(size)
    before = digest(tensor)
    tensor[size // 2] = 2
    assert digest(tensor) != before


def test_tensors_without_data_of_their_own_are_told_by_their_type():
    """Neither a fake tensor, a meta tensor, one under torch.func nor one whose storage was freed
    raises or crashes.
    """
    torch = pytest.importorskip("torch")
    from torch._subclasses import FakeTensorMode

    tensor, seen = torch.ones(4, 4), []
    torch.func.vmap(lambda row: (seen.append(digest(row)), row)[1])(tensor)
    with FakeTensorMode():
        seen += [digest(torch.empty(3, 3)), digest(torch.empty(()))]
    seen.append(digest(torch.empty(3, 3, device="meta")))
    for freed in (torch.ones(4, 4), torch.ones(9, 4)[5:]):
        freed.untyped_storage().resize_(0)
        seen.append(digest(freed))
    assert len(seen) == 6
    assert all(isinstance(one, bytes) for one in seen)
    assert seen[-1] == seen[-2]


def test_each_use_of_numpys_generator_shows():
    """A second normal number, which lies ready behind the first, moves nothing but a flag; the same
    state again is the same.
    """
    numpy = pytest.importorskip("numpy")
    before = numpy.random.get_state()
    try:
        states = []
        for draw in (
            None,
            numpy.random.random,
            numpy.random.normal,
            numpy.random.normal,
            numpy.random.random,
        ):
            if draw is not None:
                draw()
            states += [dict(random_states())["rng.numpy"] for _ in range(2)]
        assert states[::2] == states[1::2]
        assert len(set(states)) == 5
        numpy.random.seed(7)
        first = dict(random_states())["rng.numpy"]
        numpy.random.normal()
        ready = numpy.random.get_state()
        held = dict(random_states())["rng.numpy"]
        numpy.random.seed(7)
        assert dict(random_states())["rng.numpy"] == first
        numpy.random.set_state(ready)
        assert dict(random_states())["rng.numpy"] == held != first
    finally:
        numpy.random.set_state(before)


def test_each_use_of_pythons_generator_shows():
    """And the state put back is the one before."""
    before = random.getstate()
    first = dict(random_states())["rng.python"]
    random.random()
    assert dict(random_states())["rng.python"] != first
    random.setstate(before)
    assert dict(random_states())["rng.python"] == first


def test_the_piece_of_a_sharded_tensor_is_digested():
    """By its values, and without a collective, even for a single element."""
    pytest.importorskip("torch.distributed.tensor")
    # In a process of its own: gloo keeps a thread that never rests, and later tests would see it
    same, again, different, *others = fresh_processes().run(digests_of_shards).value
    assert same == again != different
    assert others[0] == others[1] != others[2]


def digests_of_shards():
    """Digest tensors that are divided among one rank: twice the same, and a different one."""
    import torch
    import torch.distributed as dist
    import torch.distributed.tensor as tensors

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    found = [
        digest(tensors.distribute_tensor(torch.tensor(values), mesh, [tensors.Shard(0)]))
        for one, other in ([[1.0, 2.0], [1.0, 3.0]], [[1.0], [2.0]])
        for values in (one, one, other)
    ]
    dist.destroy_process_group()
    return found
