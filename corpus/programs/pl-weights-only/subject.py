"""Lightning with load_from_checkpoint instead of ckpt_path."""

import logging
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class Regression(pl.LightningModule):
    """A line."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 1)

    def training_step(self, batch, _):
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


def train(workdir, epochs):
    pl.seed_everything(0, verbose=False)
    loader = DataLoader(TensorDataset(torch.randn(20, 4), torch.randn(20, 1)), batch_size=5)
    model, done = Regression(), 0
    if found := sorted(Path(workdir).glob("epoch=*.ckpt")):
        model = Regression.load_from_checkpoint(found[-1])
        done = int(found[-1].stem.removeprefix("epoch=")) + 1
    if done < epochs:
        first = done

        class Save(pl.Callback):
            def on_train_epoch_end(self, trainer, module):
                path = Path(workdir) / f"epoch={first + trainer.current_epoch}.ckpt"
                trainer.save_checkpoint(f"{path}.part")
                Path(f"{path}.part").rename(path)

        trainer = pl.Trainer(
            max_epochs=epochs - done,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Save()],
        )
        trainer.fit(model, loader)
    assert ModelCheckpoint  # not used: the callback above names files by all epochs
    return {
        "model": {name: value.clone() for name, value in model.state_dict().items()},
        "epochs": epochs,
    }
