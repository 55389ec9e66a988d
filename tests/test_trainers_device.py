"""Faults of device and process, met by an unmodified trainer. (needs torch)"""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pytorch_lightning") is None, reason="needs pytorch-lightning"
)

TRAINING = """
import warnings, pytorch_lightning as pl, torch
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
X = torch.linspace(-1, 1, 48 * 4).reshape(48, 4).sin()

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    def training_step(self, batch, number):
        x, y = batch
        return nn.functional.mse_loss(self.layers(x), y)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

def train(folder, callbacks=(), workers=0, model=Model, **keywords):
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[ModelCheckpoint(dirpath=folder, save_last=True), *callbacks], **keywords,
    )
    found = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    model = model()
    loader = DataLoader(TensorDataset(X, X.sum(1, keepdim=True)), 8, num_workers=workers)
    trainer.fit(model, loader, ckpt_path=found[-1] if found else None)
    return model.state_dict()
"""


@pytest.fixture
def example(example):
    """A project with a trainer."""
    return example.with_file("training.py", TRAINING)


def test_a_trainer_that_is_told_to_end(example):
    """Its handler lets the step come to its end; only a checkpoint on exceptions makes use of the
    grace.
    """
    outcome = example.with_tests(
        """
        from training import OnExceptionCheckpoint, train

        @chaos.preempt(at=8, grace="30s")
        def test_plain(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_emergency_save()

        @chaos.preempt(at=8, grace="30s", site="train.forward")
        def test_saves(mlchaos, tmp_path):
            run = mlchaos.run(lambda folder: train(folder, [OnExceptionCheckpoint(folder)]), tmp_path)
            run.assert_emergency_save()
            assert run.restarts == 1 and run.preemptions[0].saved == ("on_exception.ckpt",)
            assert "SIGTERMException" in run.attempts[0].ended
        """
    ).run(fresh=True, passed=1, failed=1)
    outcome.has(
        "no emergency save: no file changed between SIGTERM at train.step 8 and its own end"
    )


@pytest.mark.slow
def test_a_trainer_on_a_device_that_fails(example):
    """A lost device, a lost worker and memory that runs out end the process; it is started again,
    and recovers.
    """
    example.with_tests(
        """
        from training import Model, train

        @chaos.gpu_lost(kind="ecc", at=7)
        def test_lost(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            run.assert_recovered()
            assert "uncorrectable ECC error" in run.attempts[0].ended

        @chaos.worker_death(at=7)
        def test_worker(mlchaos, tmp_path):
            run = mlchaos.run(lambda folder: train(folder, workers=1), tmp_path)
            run.assert_recovered()
            assert run.restarts == 1

        @chaos.gpu_oom(budget="2KiB", times=1)
        def test_budget(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            run.assert_recovered()
            run.assert_same_effective_batch()
            assert run.restarts == 1

        @chaos.interrupt(at=7)
        def test_interrupt(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            run.assert_recovered()

        @chaos.crash(at=7, times=2)
        def test_crash_again(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            run.assert_recovered()
            run.assert_same_effective_batch()
            assert run.restarts == 2

        class Louder(Model):
            def training_step(self, batch, number):
                return super().training_step(batch, number) * (1.5 if self.trainer.ckpt_path else 1)

        @chaos.crash(at=7)
        def test_scale(mlchaos, tmp_path):
            run = mlchaos.run(lambda folder: train(folder, model=Louder), tmp_path)
            run.assert_same_effective_batch()
        """
    ).run(fresh=True, passed=5, failed=1).has(
        "step 6 of attempt 2: the scale of the gradient is 1.5 times that of the golden run"
    )
