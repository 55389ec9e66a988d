"""FastAPI, cachetools: summaries that a model writes, kept for a while."""

import asyncio
import collections

import cachetools
from fastapi import FastAPI

app = FastAPI()
cache = cachetools.TTLCache(100, ttl=60)
locks = collections.defaultdict(asyncio.Lock)


class Model:
    async def summary(self, name):
        await asyncio.sleep(0.02)
        return name * 3


model = Model()


async def summarized(name):
    if name not in cache:
        cache[name] = await model.summary(name)
    return cache[name]


@app.get("/summary/{name}")
async def summary(name: str):
    return {"summary": await summarized(name)}
