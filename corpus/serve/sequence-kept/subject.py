"""FastAPI, torch: a continuous batcher, which decodes one token of all sequences at a time."""

import asyncio
import contextlib

import torch
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

LENGTH, SLOTS = 4, 2
torch.manual_seed(0)
weights = torch.randn(8, 8)


class Sequence:
    def __init__(self, token):
        self.token = token
        self.tokens = asyncio.Queue(1)


class Engine:
    """Decodes the sequences that are running. Others wait for a slot."""

    def __init__(self):
        self.running, self.waiting = [], []
        self.wanted = asyncio.Event()

    def add(self, token):
        sequence = Sequence(token)
        self.waiting.append(sequence)
        self.wanted.set()
        return sequence

    def abort(self, sequence):
        for sequences in (self.running, self.waiting):
            if sequence in sequences:
                sequences.remove(sequence)
        while not sequence.tokens.empty():
            sequence.tokens.get_nowait()

    async def run(self):
        while True:
            await self.wanted.wait()
            while self.waiting and len(self.running) < SLOTS:
                self.running.append(self.waiting.pop(0))
            if not self.running:
                self.wanted.clear()
                continue
            await asyncio.sleep(0.01)
            batch = list(self.running)
            decoded = weights[[one.token for one in batch]].argmax(1).tolist()
            for sequence, token in zip(batch, decoded, strict=True):
                sequence.token = token
                await sequence.tokens.put(token)


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.engine = Engine()
    task = asyncio.create_task(app.state.engine.run())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


async def tokens_of(engine, token):
    sequence = engine.add(token)
    for _ in range(LENGTH):
        yield f"{await sequence.tokens.get()} "
    engine.abort(sequence)


@app.get("/generate/{token}")
async def generate(token: int):
    return StreamingResponse(tokens_of(app.state.engine, token))
