"""skorch with parameters alone."""

import os

import numpy as np
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn


class SaveParams(Callback):
    """params-N.pt behind epoch N."""

    def __init__(self, folder, first):
        self.folder, self.first = folder, first

    def on_epoch_end(self, net, **kwargs):
        path = os.path.join(self.folder, f"params-{self.first + len(net.history)}.pt")
        net.save_params(f_params=path + ".tmp")
        os.replace(path + ".tmp", path)


def train(workdir, epochs):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype("float32")
    y = x.sum(1, keepdims=True)
    done = max(
        (
            int(name[7:-3])
            for name in os.listdir(workdir)
            if name.startswith("params-") and name.endswith(".pt")
        ),
        default=0,
    )
    net = NeuralNetRegressor(
        nn.Linear,
        module__in_features=5,
        module__out_features=1,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.02,
        batch_size=10,
        max_epochs=epochs - done,
        train_split=None,
        verbose=0,
        callbacks=[SaveParams(workdir, done)],
    )
    net.initialize()
    if done:
        net.load_params(f_params=os.path.join(workdir, f"params-{done}.pt"))
    if done < epochs:
        net.partial_fit(x, y)
    return {"module": net.module_.state_dict(), "epochs": epochs}
