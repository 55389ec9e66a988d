"""transformers.Trainer with checkpoints every third step, resumed from the newest directory."""

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint


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
    trainer = Trainer(model=model, args=arguments, train_dataset=Rows())
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(workdir)))
    return {"state": model.state_dict(), "step": trainer.state.global_step}
