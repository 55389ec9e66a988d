"""torch_geometric, training on a dataset that is processed at the first start."""

import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.nn import GCNConv


class Rings(InMemoryDataset):
    """Rings of four to eight nodes."""

    def __init__(self, root):
        super().__init__(root)
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self):
        return ["rings.pt"]

    def process(self):
        graphs = []
        for size in range(4, 9):
            nodes = torch.arange(size)
            graphs.append(
                Data(
                    x=torch.eye(size)[:, :4],
                    edge_index=torch.stack([nodes, nodes.roll(1)]),
                    y=torch.tensor([float(size)]),
                )
            )
        self.save(graphs, self.processed_paths[0])


def train(workdir, epochs):
    torch.manual_seed(0)
    dataset = Rings(str(workdir))
    conv = GCNConv(4, 1)
    optimizer = torch.optim.Adam(conv.parameters(), lr=0.01)
    for _ in range(epochs):
        for graph in dataset:
            optimizer.zero_grad()
            (conv(graph.x, graph.edge_index).sum() - graph.y).square().mean().backward()
            optimizer.step()
    return conv.state_dict()
