"""Train the same model, with data in an order of seed and epoch, and one atomic checkpoint per
epoch.
"""

import os
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader, DistributedSampler

from examples import iris
from examples.lightning.classifier import Classifier


class Beside(TorchCheckpointIO):
    """Write a checkpoint in its own directory, never across filesystems, and rename it."""

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: object = None
    ) -> None:
        """Save the checkpoint completely or not at all."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)


def train(workdir: Path) -> dict[str, torch.Tensor]:
    """Train for a few epochs. Continue from the last checkpoint if it exists."""
    pl.seed_everything(0, verbose=False)
    flowers = iris.load()
    # Lightning sets its epoch.
    sampler = DistributedSampler(flowers, num_replicas=1, rank=0, seed=0)
    loader = DataLoader(flowers, batch_size=50, sampler=sampler)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=workdir,
        callbacks=[ModelCheckpoint(dirpath=workdir, save_last=True)],
        plugins=[Beside()],
    )
    model = Classifier()
    trainer.fit(model, loader, ckpt_path="last")
    return model.state_dict()
