"""Train with Lightning as many do: shuffled, a checkpoint every other step, resumed from the last
one.
"""

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from examples import iris
from examples.lightning.classifier import Classifier


def train(workdir: Path) -> dict[str, torch.Tensor]:
    """Train for a few epochs. Continue from the last checkpoint if it exists."""
    pl.seed_everything(0, verbose=False)
    loader = DataLoader(iris.load(), batch_size=50, shuffle=True)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=workdir,
        callbacks=[ModelCheckpoint(dirpath=workdir, save_last=True, every_n_train_steps=2)],
    )
    model = Classifier()
    trainer.fit(model, loader, ckpt_path="last")
    return model.state_dict()
