"""FastAPI, torch: a classifier whose first call is slow."""

import asyncio
import contextlib

import torch
from fastapi import FastAPI

torch.manual_seed(0)
model = torch.nn.Linear(3, 4)


async def predict(number):
    await asyncio.sleep(0.002)
    with torch.no_grad():
        return int(model(torch.tensor([number, number * 0.5, 1.0])).argmax())


@contextlib.asynccontextmanager
async def lifespan(app):
    await predict(0.0)
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/label/{number}")
async def label(number: float):
    return {"label": await predict(number)}
