"""Fine-tune a model with the Trainer of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


class Line(nn.Module):
    """A straight line, with the interface that Trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss and the predictions."""
        predicted = self.layer(x).squeeze(-1)
        return {"loss": nn.functional.mse_loss(predicted, labels), "logits": predicted}


def train(out: Path) -> dict[str, torch.Tensor]:
    """Train for two epochs with a checkpoint every other step. Resume from the last one."""
    torch.manual_seed(0)
    model = Line()
    points = torch.randn(16, 2, generator=torch.Generator().manual_seed(1))
    data = [{"x": point, "labels": point.sum()} for point in points]
    arguments = TrainingArguments(
        str(out),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        learning_rate=0.1,
        save_steps=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    last = get_last_checkpoint(str(out)) if out.is_dir() else None
    Trainer(model, arguments, train_dataset=data).train(resume_from_checkpoint=last)
    return model.state_dict()
