"""torch: the mean of the samples that a DataLoader reads from files."""

import numpy as np
import torch


class Samples(torch.utils.data.Dataset):
    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.from_numpy(np.load(self.folder / f"{index}.npy"))


def collate(samples):
    return torch.stack([sample for sample in samples if sample is not None])


def prepare(workdir):
    for index in range(6):
        np.save(workdir / f"{index}.npy", np.full(4, index + 1.0))


def pipeline(workdir):
    loader = torch.utils.data.DataLoader(Samples(workdir), batch_size=3, collate_fn=collate)
    return torch.cat(list(loader)).mean(dim=0)
