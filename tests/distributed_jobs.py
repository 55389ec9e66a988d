"""Ordinary distributed jobs, one of each kind, as users write them. They know nothing of mlchaos.

Each job trains a small model in a process group, and returns what it has learnt.
"""

from __future__ import annotations

import os
import pathlib
import warnings
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

STEPS = 3


def _group():
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    return dist.get_rank()


def _model():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def _batch(step):
    generator = torch.Generator().manual_seed(100 * step + int(os.environ["RANK"]))
    return torch.randn(8, 4, generator=generator)


def _train(model, steps=STEPS, clip=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        model(_batch(step)).square().mean().backward()
        if clip is not None:
            clip(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def _result(model):
    module = getattr(model, "module", model)
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _ddp(**options):
    _group()
    return DistributedDataParallel(_model(), **options)


def ddp():
    """Train with DistributedDataParallel."""
    return _result(_train(_ddp()))


def ddp_in_buckets():
    """Train with views of small buckets as gradients."""
    return _result(_train(_ddp(gradient_as_bucket_view=True, bucket_cap_mb=0.0001)))


def ddp_with_a_static_graph():
    """Train with the hints that a compiled graph allows."""
    return _result(_train(_ddp(static_graph=True)))


def ddp_with_unused_parameters():
    """Train one of two branches in each step."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.branches = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
            self.calls = 0

        def forward(self, batch):
            self.calls += 1
            return self.branches[self.calls % 2](batch)

    _group()
    return _result(_train(DistributedDataParallel(Branches(), find_unused_parameters=True)))


def ddp_without_sync_in_between():
    """Accumulate the gradients of two batches."""
    model = _ddp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(4):
        with nullcontext() if step % 2 else model.no_sync():
            model(_batch(step)).square().mean().backward()
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
    return _result(model)


def ddp_with_uneven_batches():
    """Let the ranks have different numbers of batches, by Join."""
    rank = _group()
    model = DistributedDataParallel(_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with model.join():
        for step in range(STEPS + rank):
            model(_batch(step)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return _result(model)


def ddp_in_half_precision_on_the_wire():
    """Compress the gradients by a comm hook."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    model = _ddp()
    model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    return _result(_train(model))


def ddp_with_power_sgd():
    """Compress the gradients to a low rank."""
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

    model = _ddp()
    state = powerSGD_hook.PowerSGDState(None, 1, start_powerSGD_iter=2, min_compression_rate=0.1)
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return _result(_train(model, 4))


def optimizer_in_shards():
    """Keep the state of the optimizer in shards."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = _ddp()
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.1)
    for step in range(STEPS):
        model(_batch(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return _result(model)


def _fully_sharded():
    from torch.distributed.fsdp import fully_shard

    _group()
    mesh = torch.distributed.init_device_mesh("cpu", (dist.get_world_size(),))
    model = _model()
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    return model


def _whole(model):
    return {name: value.full_tensor() for name, value in model.state_dict().items()}


def fsdp2():
    """Train with ``fully_shard``."""
    return _whole(_train(_fully_sharded()))


def fsdp2_with_clipping():
    """Clip the norm of gradients that are in shards."""
    return _whole(_train(_fully_sharded(), clip=nn.utils.clip_grad_norm_))


def tensor_parallel():
    """Split the layers themselves."""
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    _group()
    mesh = torch.distributed.init_device_mesh("cpu", (dist.get_world_size(),))
    model = parallelize_module(_model(), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
    for step in range(STEPS):
        batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {
        name: getattr(value, "full_tensor", lambda value=value: value)().detach()
        for name, value in model.state_dict().items()
    }


def gradients_averaged_by_hand():
    """Average the gradients without DDP."""
    _group()
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        model(_batch(step)).square().mean().backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
        optimizer.step()
        optimizer.zero_grad()
    return _result(model)


def asynchronous_reductions():
    """Start all reductions, then wait for them."""
    _group()
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        model(_batch(step)).square().mean().backward()
        for work in [dist.all_reduce(one.grad, async_op=True) for one in model.parameters()]:
            work.wait()
        optimizer.step()
        optimizer.zero_grad()
    return _result(model)


def local_sgd():
    """Average the models every second step."""
    _group()
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(4):
        model(_batch(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 2:
            for parameter in model.parameters():
                dist.all_reduce(parameter.data)
                parameter.data /= dist.get_world_size()
    return _result(model)


def groups_in_groups():
    """Reduce in a group of each rank, then in the world."""
    rank = _group()
    groups = [dist.new_group([one]) for one in range(dist.get_world_size())]
    total = torch.zeros(4)
    for step in range(STEPS):
        value = _batch(step).sum(0)
        dist.all_reduce(value, group=groups[rank])
        dist.all_reduce(value)
        total += value
    return total


def pipeline_by_hand():
    """Send activations to the next rank, and gradients back."""
    rank = _group()
    layer = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for step in range(STEPS):
        if rank == 0:
            batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            output = layer(batch)
            dist.send(output.detach(), 1)
            gradient = torch.zeros(8, 4)
            dist.recv(gradient, 1)
            output.backward(gradient)
        elif rank == 1:
            received = torch.zeros(8, 4)
            dist.recv(received, 0)
            received.requires_grad_()
            layer(received).square().mean().backward()
            dist.send(received.grad, 0)
        optimizer.step()
        optimizer.zero_grad()
    dist.barrier()
    return _result(layer)


def pipeline_of_a_library():
    """Run a schedule of ``torch.distributed.pipelining``."""
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    rank = _group()
    layer = nn.Linear(4, 4)
    stage = PipelineStage(layer, rank, dist.get_world_size(), torch.device("cpu"))
    schedule = ScheduleGPipe(
        stage, 2, loss_fn=lambda output, target: (output - target).pow(2).mean()
    )
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for step in range(STEPS):
        batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        if rank == 0:
            schedule.step(batch)
        else:
            schedule.step(target=torch.zeros(8, 4), losses=[])
        optimizer.step()
        optimizer.zero_grad()
    return _result(layer)


def objects():
    """Exchange Python objects."""
    rank = _group()
    found = []
    for step in range(STEPS):
        order = [{"step": step, "seed": 3 * step}] if rank == 0 else [None]
        dist.broadcast_object_list(order, 0)
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, (rank, order[0]["seed"]))
        found.append(gathered)
    return found


def monitored():
    """Check that all ranks are there before each step."""
    _group()
    total = torch.zeros(1)
    for step in range(STEPS):
        dist.monitored_barrier()
        value = torch.full((1,), float(step))
        dist.all_reduce(value)
        total += value
    return total


def functional_collectives():
    """Use collectives that return new tensors."""
    import torch.distributed._functional_collectives as functional

    _group()
    total = torch.zeros(4)
    for step in range(STEPS):
        total = total + functional.all_reduce(_batch(step).sum(0), "sum", dist.group.WORLD)
    return total.clone()


def all_kinds_of_collectives():
    """Gather, scatter, reduce and exchange."""
    rank, ranks = _group(), dist.get_world_size()
    found = []
    for step in range(STEPS):
        value = torch.full((ranks,), float(step + rank))
        out = [torch.zeros(ranks) for _ in range(ranks)]
        dist.all_gather(out, value)
        gathered = out if rank == 0 else None
        dist.gather(value, gathered)
        mine = torch.zeros(ranks)
        dist.scatter(mine, out if rank == 0 else None)
        dist.reduce(value, 0)
        part = torch.zeros(1)
        dist.reduce_scatter(part, [one[:1].clone() for one in out])
        swapped = torch.zeros(ranks)
        dist.all_to_all_single(swapped, mine)
        found.append(float(part + swapped.sum()))
    return found


def sampler_with_loader_workers():
    """Read by a sampler for ranks, in loader workers."""
    from torch.utils.data import DataLoader, DistributedSampler

    _group()
    data = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(data, batch_size=4, sampler=DistributedSampler(data), num_workers=1)
    model = DistributedDataParallel(_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in loader:
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return _result(model)


def _checkpointed(save, workdir, finish=lambda: None):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model = _fully_sharded()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    done = max((int(path.name) for path in pathlib.Path(workdir).glob("[0-9]*")), default=0)
    if done:
        states = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
        dcp.load(states, checkpoint_id=str(pathlib.Path(workdir) / str(done)))
        set_state_dict(
            model, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"]
        )
    for step in range(done, STEPS):
        model(_batch(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        states = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
        save(dcp, states, str(pathlib.Path(workdir) / str(step + 1)))
    finish()
    return _whole(model)


def distributed_checkpoints(workdir):
    """Save and load by torch.distributed.checkpoint."""
    return _checkpointed(lambda dcp, states, path: dcp.save(states, checkpoint_id=path), workdir)


def asynchronous_checkpoints(workdir):
    """Save in the background."""
    saves = []

    def save(dcp, states, path):
        for one in saves:
            one.result()
        saves[:] = [dcp.async_save(states, checkpoint_id=path)]

    return _checkpointed(save, workdir, lambda: [one.result() for one in saves])


def parameter_server():
    """Train with a parameter server, over RPC."""
    from torch.distributed import rpc

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    os.environ.setdefault("TP_SOCKET_IFNAME", "lo")
    rpc.init_rpc(f"worker{rank}", rank=rank, world_size=ranks)
    weight = torch.zeros(4)
    if rank:
        for step in range(STEPS):
            weight = rpc.rpc_sync("worker0", _served, args=(_batch(step).mean(0),))
    rpc.shutdown()
    return weight


_WEIGHT = torch.zeros(4)


def _served(gradient):
    _WEIGHT.sub_(0.1 * gradient)
    return _WEIGHT.clone()


def lightning(workdir):
    """Train by Lightning, in the ranks that are there."""
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = _model()

        def training_step(self, batch, index):
            return self.layer(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    module = Module()
    data = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=int(os.environ["LOCAL_WORLD_SIZE"]),
            strategy="ddp",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(workdir),
        )
        trainer.fit(module, DataLoader(data, batch_size=4))
    return _result(module)


def accelerate(workdir):
    """Train by accelerate."""
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    data = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    model = _model()
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), lr=0.1), DataLoader(data, batch_size=4)
    )
    for batch in loader:
        accelerator.backward(model(batch).square().mean())
        optimizer.step()
        optimizer.zero_grad()
    return _result(accelerator.unwrap_model(model))


def trainer(workdir):
    """Train by the Trainer of transformers."""
    import transformers

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = _model()

        def forward(self, x, labels=None):
            return {"loss": self.layer(x).square().mean()}

    torch.manual_seed(0)
    data = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    rows = [{"x": row, "labels": torch.zeros(())} for row in data]
    options = transformers.TrainingArguments(
        output_dir=str(workdir),
        per_device_train_batch_size=4,
        num_train_epochs=1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        ddp_backend="gloo",
    )
    made = transformers.Trainer(Model(), options, train_dataset=rows)
    made.train()
    return _result(made.accelerator.unwrap_model(made.model))


ALIKE = (
    ddp,
    ddp_in_buckets,
    ddp_with_a_static_graph,
    ddp_with_unused_parameters,
    ddp_without_sync_in_between,
    ddp_with_uneven_batches,
    ddp_in_half_precision_on_the_wire,
    ddp_with_power_sgd,
    optimizer_in_shards,
    fsdp2,
    fsdp2_with_clipping,
    tensor_parallel,
    gradients_averaged_by_hand,
    asynchronous_reductions,
    local_sgd,
    groups_in_groups,
    objects,
    monitored,
    functional_collectives,
    sampler_with_loader_workers,
    distributed_checkpoints,
    asynchronous_checkpoints,
    lightning,
    accelerate,
    trainer,
)
"""Jobs whose ranks end in the same state."""
APART = (pipeline_by_hand, pipeline_of_a_library, all_kinds_of_collectives, parameter_server)
"""Jobs whose ranks end in states of their own."""
