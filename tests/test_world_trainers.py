"""Crash states of real jobs of two ranks: torch's distributed checkpoints, FSDP2, and trainers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_mlchaos.crashes.recording.own_events import is_available
from pytest_mlchaos.errors import NotRecovered

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="a torch without distributed"),
    pytest.mark.skipif(not is_available("/tmp"), reason="the kernel does not tell ranks apart"),
]
TIMEOUT = 300
"""A world may take so long on a busy machine."""


def sharded(workdir, mode="sync", complete=True, steps=2):
    """FSDP2, saved by torch.distributed.checkpoint in one directory for each step.

    A save is complete if its metadata exist: the coordinator writes them last, and renames them.
    With ``complete=False``, the job takes the newest directory as it is.
    """
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group()
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 4)
    fully_shard(net, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    saves = [
        path
        for path in Path(workdir).glob("step-*")
        if not complete or (path / ".metadata").exists()
    ]
    start = max((int(path.name[5:]) for path in saves), default=0)
    if start:
        state = dict(zip(("model", "optimizer"), get_state_dict(net, optimizer), strict=True))
        dcp.load(state, checkpoint_id=str(Path(workdir) / f"step-{start}"))
        set_state_dict(
            net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )
    pending = None
    # The thread of a save must not share a group with the training: their collectives would meet.
    apart = dist.new_group() if mode == "async" else None
    for step in range(start, steps):
        generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
        net(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if pending is not None:
            pending.result()
        state = dict(zip(("model", "optimizer"), get_state_dict(net, optimizer), strict=True))
        target = str(Path(workdir) / f"step-{step + 1}")
        if mode == "async":
            pending = dcp.async_save(state, checkpoint_id=target, process_group=apart)
        else:
            dcp.save(state, checkpoint_id=target)
    if pending is not None:
        pending.result()
    end = {name: value.full_tensor() for name, value in net.state_dict().items()}
    dist.destroy_process_group()
    return end


def explore(mlchaos, folder, subject, *args, **options):
    """Explore a world of two ranks, with time for a busy machine."""
    world = mlchaos.world(ranks=2, timeout=TIMEOUT)
    return world.explore_crashes(subject, folder / "work", *args, timeout=TIMEOUT, **options)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_distributed_checkpoints_recover(mlchaos, tmp_path, mode):
    """A job that looks for the metadata is sound, and no state has them without all shards."""
    report = explore(mlchaos, tmp_path, sharded, mode, max_states=16)
    report.assert_recovers()
    shards = {"step-1/__0_0.distcp", "step-1/__1_0.distcp"}
    for state in report.states:
        if "step-1/.metadata" in state.tree:
            assert shards <= state.tree.keys()
            assert not state.path.startswith("step-1/_")
    held = [state.tree.keys() & shards for state in report.states]
    assert {"step-1/__0_0.distcp"} in held
    assert {"step-1/__1_0.distcp"} in held


def test_a_directory_without_metadata_is_not_a_checkpoint(mlchaos, tmp_path):
    """A job that takes the newest directory cannot be resumed."""
    report = explore(mlchaos, tmp_path, sharded, "sync", False, max_states=8)
    with pytest.raises(NotRecovered, match=r"resume raised .*, in rank"):
        report.assert_recovers()


def test_fewer_ranks_find_a_directory_without_metadata(mlchaos, tmp_path):
    """The directory is as incomplete for a world of a different size."""
    report = explore(mlchaos, tmp_path, sharded, "sync", False, max_states=8, resume_ranks=1)
    with pytest.raises(NotRecovered, match=r"resume raised .*, in rank 0"):
        report.assert_recovers()


def own_shards(workdir, steps=2):
    """FSDP2. Each rank saves its own shards, and rank 0 says that the save is complete."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 6)
    fully_shard(net, mesh=init_device_mesh("cpu", (ranks,)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    start = max((int(path.stem) for path in Path(workdir).glob("*.done")), default=0)
    if start:
        shards = torch.load(Path(workdir) / f"{start}.{rank}")
        with torch.no_grad():
            for parameter, shard in zip(net.parameters(), shards, strict=True):
                parameter.to_local().copy_(shard)
    for step in range(start, steps):
        generator = torch.Generator().manual_seed(100 * step + rank)
        net(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        shards = [parameter.to_local().detach() for parameter in net.parameters()]
        torch.save(shards, Path(workdir) / f"{step + 1}.{rank}")
        dist.barrier()
        if rank == 0:
            (Path(workdir) / f"{step + 1}.done").touch()
    end = {name: value.full_tensor() for name, value in net.state_dict().items()}
    dist.destroy_process_group()
    return end


def test_own_shards_recover_in_a_world_of_the_same_size(mlchaos, tmp_path):
    """The barrier comes before the word that the save is complete."""
    explore(mlchaos, tmp_path, own_shards, max_states=12).assert_recovers()


@pytest.mark.parametrize(("ranks", "error"), [(1, "RuntimeError"), (3, "FileNotFoundError")])
def test_own_shards_fit_no_world_of_a_different_size(mlchaos, tmp_path, ranks, error):
    """Each rank has the shards of one rank of the old world."""
    report = explore(mlchaos, tmp_path, own_shards, max_states=12, resume_ranks=ranks)
    with pytest.raises(NotRecovered, match=f"resume raised {error}"):
        report.assert_recovers()


def transformers_trainer(workdir, with_marker=False, steps=4, every=2):
    """The Trainer of transformers, which resumes from its newest directory.

    ``with_marker`` lets rank 0 mark a directory when all ranks have saved, and takes marked ones
    alone.
    """
    import torch.distributed as dist
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
    from transformers.trainer_utils import get_last_checkpoint

    class Marker(TrainerCallback):
        def on_save(self, args, state, control, **_):
            dist.barrier()
            if state.is_world_process_zero:
                (Path(workdir) / f"{state.global_step}.done").touch()

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, index):
            x = torch.randint(0, 100, (16,), generator=torch.Generator().manual_seed(index))
            return {"input_ids": x, "labels": x.clone()}

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=100, n_positions=16, n_embd=32, n_layer=1, n_head=2)
    arguments = TrainingArguments(
        output_dir=str(workdir),
        max_steps=steps,
        save_steps=every,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        logging_steps=1000,
        seed=0,
        data_seed=0,
        disable_tqdm=True,
        ddp_timeout=60,
    )
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=arguments,
        train_dataset=Data(),
        callbacks=[Marker()] if with_marker else [],
    )
    last = get_last_checkpoint(str(workdir))
    if with_marker:
        done = max((int(path.stem) for path in Path(workdir).glob("*.done")), default=0)
        last = str(Path(workdir) / f"checkpoint-{done}") if done else None
    trainer.train(resume_from_checkpoint=last)


def test_the_trainer_of_transformers_recovers_with_a_marker(mlchaos, tmp_path):
    """A directory counts when all ranks have saved."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    explore(mlchaos, tmp_path, transformers_trainer, True, max_states=6).assert_recovers()


def test_the_trainer_of_transformers_takes_a_directory_for_a_checkpoint(mlchaos, tmp_path):
    """A rank that dies in a save leaves a directory that stops the next job.

    ckpt-chaos finds the same by 22 kills (``benchmarks/peers_ranks.py``).
    """
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    report = explore(mlchaos, tmp_path, transformers_trainer, max_states=6)
    with pytest.raises(NotRecovered, match=r"resume raised .*, in rank"):
        report.assert_recovers()


def lightning_trainer(workdir, in_place=False, epochs=3):
    """Lightning's Trainer under DDP, which writes each checkpoint elsewhere and renames it.

    ``in_place`` replaces the writer by one that does not.
    """
    import pytorch_lightning as pl
    from lightning_fabric.plugins import TorchCheckpointIO

    class InPlace(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            torch.save(checkpoint, path)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(4, 1)

        def training_step(self, batch):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    pl.seed_everything(0, verbose=False)
    data = torch.utils.data.TensorDataset(torch.arange(64.0).reshape(16, 4) / 64)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=int(os.environ["WORLD_SIZE"]),
        strategy="ddp",
        default_root_dir=str(workdir),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[InPlace()] if in_place else [],
        callbacks=[pl.callbacks.ModelCheckpoint(dirpath=str(workdir), save_last=True)],
    )
    model = Module()
    last = Path(workdir) / "last.ckpt"
    trainer.fit(
        model,
        torch.utils.data.DataLoader(data, batch_size=4),
        ckpt_path=str(last) if last.exists() else None,
    )


def test_lightning_recovers(mlchaos, tmp_path):
    """A sound trainer is not flagged."""
    pytest.importorskip("pytorch_lightning")
    explore(mlchaos, tmp_path, lightning_trainer, max_states=20).assert_recovers()


def test_lightning_fails_with_a_writer_that_writes_in_place(mlchaos, tmp_path):
    """Rank 0 may die in the middle of the file, and all ranks fail to load it."""
    pytest.importorskip("pytorch_lightning")
    report = explore(mlchaos, tmp_path, lightning_trainer, True, max_states=12)
    with pytest.raises(NotRecovered, match=r"last\.ckpt cut at byte"):
        report.assert_recovers()
