"""ignite, resumed at epochs."""

from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn


def train(workdir, epochs):
    torch.manual_seed(0)
    batches = [(torch.randn(6, 4), torch.randn(6, 1)) for _ in range(5)]
    model = nn.Linear(4, 1)
    opt = torch.optim.Adam(model.parameters(), lr=0.05)

    def update(engine, batch):
        opt.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        loss.backward()
        opt.step()
        return loss.item()

    trainer = Engine(update)
    everything = {"model": model, "opt": opt, "trainer": trainer}
    saver = Checkpoint(
        everything,
        DiskSaver(str(workdir), require_empty=False),
        n_saved=2,
        global_step_transform=lambda e, _: e.state.epoch,
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, saver)
    if found := sorted(
        Path(workdir).glob("checkpoint_*.pt"), key=lambda path: int(path.stem.rsplit("_", 1)[1])
    ):
        Checkpoint.load_objects(everything, torch.load(found[-1], weights_only=False))
    if trainer.state.epoch < epochs:
        trainer.run(batches, max_epochs=epochs)
    return {"model": model.state_dict(), "step": trainer.state.iteration}
