"""Starlette, torch: a streaming token server over a tiny model, with one slot."""

import asyncio

import torch
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

VOCABULARY = ["the", "cat", "sat", "on", "a", "mat", "and", "slept"]
torch.manual_seed(0)
embedding = torch.nn.Embedding(8, 6)
head = torch.nn.Linear(6, 8)
slots = asyncio.Semaphore(1)


@torch.no_grad()
def next_token(tokens):
    return int(head(embedding(torch.tensor(tokens)).mean(0)).argmax() + len(tokens)) % 8


async def generated(seed):
    tokens = [seed]
    for _ in range(4):
        tokens.append(next_token(tokens))
        await asyncio.sleep(0.01)
        yield f"{VOCABULARY[tokens[-1]]} "


async def in_a_slot(seed):
    async with slots:
        async for word in generated(seed):
            yield word


async def generate(request):
    return StreamingResponse(in_a_slot(request.path_params["seed"]), media_type="text/plain")


app = Starlette(routes=[Route("/generate/{seed:int}", generate)])
