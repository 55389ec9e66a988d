"""Train a character model with one block of attention, as small GPT repositories do."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

TEXT = "to be, or not to be, that is the question: " * 8
BLOCK = 8
STEPS = 12
SAVE_EVERY = 3


class TinyGPT(nn.Module):
    """One block of causal self-attention over characters."""

    def __init__(self, vocabulary: int, width: int = 16) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(BLOCK, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", torch.triu(torch.ones(BLOCK, BLOCK, dtype=torch.bool), 1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next character at each place."""
        x = self.tokens(tokens) + self.positions.weight
        x = x + self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]
        return self.head(x)


def train(out: Path) -> dict[str, torch.Tensor]:
    """Train, and save a checkpoint every few steps. Resume from it if there is one."""
    letters = sorted(set(TEXT))
    data = torch.tensor([letters.index(letter) for letter in TEXT])
    torch.manual_seed(0)
    model = TinyGPT(len(letters))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first, file = 0, out / "ckpt.pt"
    if file.exists():
        saved = torch.load(file)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    for step in range(first, STEPS):
        # The batch follows from the step, so that a resumed run draws the same.
        generator = torch.Generator().manual_seed(step)
        starts = torch.randint(len(data) - BLOCK - 1, (4,), generator=generator)
        x = torch.stack([data[start : start + BLOCK] for start in starts])
        y = torch.stack([data[start + 1 : start + BLOCK + 1] for start in starts])
        loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % SAVE_EVERY == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1}, f"{file}.tmp")
            os.replace(f"{file}.tmp", file)
    return model.state_dict()
