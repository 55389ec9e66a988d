"""Workers that augment with their own random numbers."""

import os
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Noisy(Dataset):
    """Rows with noise of the worker's."""

    def __init__(self):
        self.x = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + 0.1 * torch.randn(4) + random.uniform(-0.1, 0.1), self.x[i].sum(
            0, keepdim=True
        )


def train(workdir, epochs):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    loader = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2, generator=generator)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    path, start = os.path.join(workdir, "epoch.pt"), 0
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        generator.set_state(saved["generator"])
        start = saved["epoch"]
    for epoch in range(start, epochs):
        for x, y in loader:
            loss = nn.functional.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
        torch.save(
            {"model": model.state_dict(), "generator": generator.get_state(), "epoch": epoch + 1},
            path + ".tmp",
        )
        os.replace(path + ".tmp", path)
    return {"model": model.state_dict(), "epochs": epochs}
