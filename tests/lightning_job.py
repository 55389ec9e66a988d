"""A job for Lightning, which spawned ranks can import."""

from pathlib import Path

import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader

from tests.launcher_jobs import STEPS


class Model(lightning.LightningModule):
    """A linear model."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, number):
        """Return the loss."""
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, resumes, strategy):
    """Train with Lightning, which starts the ranks. Each epoch is one step, and is saved."""
    save = lightning.callbacks.ModelCheckpoint(folder, save_last=True, every_n_epochs=1)
    trainer = lightning.Trainer(
        max_steps=STEPS,
        max_epochs=-1,
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        logger=False,
        callbacks=[save],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
    )
    last = Path(folder) / "last.ckpt"
    model, found = Model(), last if last.exists() else None
    if found and not resumes:
        # The parameters go on, but the loop starts from the beginning.
        model.load_state_dict(torch.load(found, weights_only=False)["state_dict"])
    data = torch.arange(4, dtype=torch.float32).reshape(-1, 2) / 10
    trainer.fit(model, DataLoader(data, batch_size=2), ckpt_path=found if resumes else None)
