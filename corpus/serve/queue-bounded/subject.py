"""FastAPI: a generator with two workers."""

import asyncio
import contextlib

from fastapi import FastAPI, HTTPException

app = FastAPI()
LIMIT = 6


class Load:
    requests = 0


async def generate(number):
    await asyncio.sleep(0)
    return number * 3


@contextlib.contextmanager
def counted():
    Load.requests += 1
    try:
        yield Load.requests
    finally:
        Load.requests -= 1


@app.get("/generate/{number}")
async def generated(number: int):
    with counted() as requests:
        if requests > LIMIT:
            raise HTTPException(503, "too many requests", {"Retry-After": "1"})
        return {"text": await generate(number)}
