"""Share a tiny language model between both versions of the server."""

import asyncio
from collections.abc import AsyncIterator

import torch

WORDS = ["a", "cat", "and", "a", "dog", "sat", "on", "the", "old", "mat"]
TRANSITIONS = torch.randn(len(WORDS), len(WORDS), generator=torch.Generator().manual_seed(7))


async def step(token: int) -> int:
    """Return the next token. A real model computes for 20 ms."""
    await asyncio.sleep(0.02)
    return int(TRANSITIONS[token].argmax())


async def generate(token: int, length: int = 40) -> AsyncIterator[str]:
    """Yield the words that follow a token."""
    for _ in range(length):
        token = await step(token)
        yield WORDS[token] + " "
