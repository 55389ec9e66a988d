"""The same training run: the order of the data follows from seed and epoch, and a checkpoint comes at the end of each, in one operation."""

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
    """Writes a checkpoint beside its place, never across filesystems, and renames it."""

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        """Save it, whole or not at all."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)


def train(workdir: Path) -> dict[str, torch.Tensor]:
    """Train for a few epochs; go on from the last checkpoint if there is one."""
    pl.seed_everything(0, verbose=False)
    flowers = iris.load()
    sampler = DistributedSampler(flowers, num_replicas=1, rank=0, seed=0)  # Lightning tells it the epoch
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
