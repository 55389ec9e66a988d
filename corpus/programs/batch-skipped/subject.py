"""A resume that is off by one."""

import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(workdir, epochs):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(28, 4), torch.randn(28, 1))
    loader = DataLoader(data, batch_size=4)
    model = nn.Linear(4, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    path = os.path.join(workdir, "mid.pt")
    first_epoch, seen = 0, -1
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        first_epoch, seen = saved["epoch"], saved["batches"]
    for epoch in range(first_epoch, epochs):
        for i, (x, y) in enumerate(loader):
            if epoch == first_epoch and i <= seen:
                continue
            loss = nn.functional.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            if (i + 1) % 3 == 0:
                torch.save(
                    {"model": model.state_dict(), "epoch": epoch, "batches": i + 1}, path + ".tmp"
                )
                os.replace(path + ".tmp", path)
    return {"model": model.state_dict()}
