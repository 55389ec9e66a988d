"""Provide the training jobs whose collectives are struck (needs torch).

Each trains for a few steps with real DDP or FSDP2 on gloo. A *sound* job computes its gradients
twice, and takes a step only if no rank found a difference.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def model_of(kind):
    """Return a small model, wrapped as ``kind`` says."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    if kind == "fsdp":
        from torch.distributed.fsdp import fully_shard

        return fully_shard(model)
    if kind == "buckets":
        return DistributedDataParallel(model, bucket_cap_mb=1e-5)
    model = DistributedDataParallel(model)
    model.accumulates = kind == "no_sync"
    if kind == "fp16":
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

        model.register_comm_hook(None, fp16_compress_hook)
    return model


def local(tensor):
    """Return a copy of what this rank holds of a tensor."""
    return getattr(tensor, "to_local", lambda: tensor)().detach().clone()


def gradients(model, step):
    """Compute the gradients of a step, and return copies.

    A model that is to accumulate does so over two passes, the first one without a reduction.
    """
    model.zero_grad()
    if getattr(model, "accumulates", False):
        with model.no_sync():
            model(torch.ones(2, 4) * step).sum().backward()
    x = torch.linspace(-1, 1, 32).reshape(8, 4) + 0.1 * dist.get_rank() + 0.01 * step
    loss = (model(x) - x[:, :2]).square().mean()
    loss.backward()
    return [local(parameter.grad) for parameter in model.parameters()]


def same_in_all_ranks(one, other):
    """Return True if no rank found a difference."""
    same = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    flag = torch.tensor(int(same))
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)


def train(kind="ddp", sound=False, steps=4):
    """Train, and return what this rank holds of the parameters."""
    dist.init_process_group("gloo")
    model = model_of(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        found = gradients(model, step)
        if sound:
            while not same_in_all_ranks(found, again := gradients(model, step)):
                found = again
        optimizer.step()
    return [local(parameter) for parameter in model.parameters()]


def numbered(folder, checked, steps=5):
    """Train with one all-reduce for each step, and a checkpoint.

    If it is ``checked``, the number of the step and of the contributions is part of the sum. If not,
    a rank whose peers have ended takes this for the end of the training.
    """
    dist.init_process_group("gloo")
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    own = folder / str(dist.get_rank())
    own.mkdir(exist_ok=True)
    done = torch.tensor(len(list(own.iterdir())))
    dist.all_reduce(done, op=dist.ReduceOp.MIN)
    if done:
        weight.data.copy_(torch.load(own / f"{int(done)}.pt"))
    for step in range(int(done), steps):
        summed = torch.tensor([1.0, 2.0, 3.0, step, 1.0])
        summed[:3] *= step + dist.get_rank()
        try:
            dist.all_reduce(summed)
        except RuntimeError:
            if checked:
                raise
            break
        if checked and summed[3:].tolist() != [step * dist.get_world_size(), dist.get_world_size()]:
            raise RuntimeError(f"step {step} was summed with others")
        weight.grad = summed[:3].clone()
        optimizer.step()
        torch.save(weight.detach(), own / "new")
        (own / "new").rename(own / f"{step + 1}.pt")
    return weight.detach()


def shards(shuffled, seeds=6, steps=30):
    """Fit linear models on data that is spread over the ranks.

    Return the final loss for each seed, and the losses of the first. Data that is not shuffled is
    sorted: each rank alone has what it takes to learn its half of the weights.
    """
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    finals, curve = [], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        x, true = torch.randn(32 * size, 2 * size), torch.randn(2 * size, 1)
        if not shuffled:
            for other in range(size):
                mine = torch.zeros(2 * size)
                mine[2 * other : 2 * other + 2] = 1
                x[32 * other : 32 * other + 32] *= mine
        y, part = x @ true, slice(32 * rank, 32 * rank + 32)
        model = DistributedDataParallel(torch.nn.Linear(2 * size, 1, bias=False))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(steps):
            optimizer.zero_grad()
            (model(x[part]) - y[part]).square().mean().backward()
            optimizer.step()
            if seed == 0:
                curve.append(loss_of(model, x, y))
        finals.append(loss_of(model, x, y))
    return finals, curve


def loss_of(model, x, y):
    """Return the loss on the data of all ranks."""
    with torch.no_grad():
        return float((model.module(x) - y).square().mean())
