"""Train the same model, with an order of the data that depends only on the seed and the epoch."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, DistributedSampler

from examples import iris
from examples.lightning.classifier import Classifier


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
    )
    model = Classifier()
    trainer.fit(model, loader, ckpt_path="last")
    return model.state_dict()
