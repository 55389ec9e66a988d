"""Early stopping that forgets that it has stopped."""

import os

import torch


def train(workdir, epochs):
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 1)
    opt = torch.optim.SGD(net.parameters(), 0.4)
    path, e, best, bad = os.path.join(workdir, "c.pt"), 0, float("inf"), 0
    if os.path.exists(path):
        c = torch.load(path)
        net.load_state_dict(c["net"])
        e, best, bad = c["e"], c["best"], c["bad"]
    for e in range(e, epochs):
        for b in range(2):
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(b))
            opt.zero_grad()
            (net(x) - x[:, :1]).square().mean().backward()
            opt.step()
        val = 1.0 if e > 1 else 2.0 - e
        best, bad = (val, 0) if val < best else (best, bad + 1)
        torch.save({"net": net.state_dict(), "e": e + 1, "best": best, "bad": bad}, path + ".t")
        os.replace(path + ".t", path)
        if bad >= 3:
            break
    return {"net": net.state_dict(), "epochs": e + 1}
