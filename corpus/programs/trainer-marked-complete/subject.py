"""transformers.Trainer with checkpoints every third step, resumed from the newest directory that is complete."""

from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed


class Rows(torch.utils.data.Dataset):
    """Twenty rows."""

    def __init__(self):
        self.x = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, number):
        return {"x": self.x[number]}


class Net(nn.Module):
    """A line."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        return {"loss": (self.layer(x) - x.sum(1, keepdim=True)).square().mean()}


class MarkComplete(TrainerCallback):
    """Write the last file of a checkpoint: all others are complete when ``on_save`` is called."""

    def on_save(self, args, state, control, **kwargs):
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / "complete").touch()


def newest_complete(workdir):
    found = sorted(
        Path(workdir).glob("checkpoint-*/complete"),
        key=lambda mark: int(mark.parent.name.partition("-")[2]),
    )
    return str(found[-1].parent) if found else None


def train(workdir, steps):
    set_seed(0)
    arguments = TrainingArguments(
        output_dir=str(workdir),
        max_steps=steps,
        per_device_train_batch_size=4,
        save_strategy="steps",
        save_steps=3,
        learning_rate=0.01,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    model = Net()
    trainer = Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[MarkComplete()])
    trainer.train(resume_from_checkpoint=newest_complete(workdir))
    return {"state": model.state_dict(), "step": trainer.state.global_step}
