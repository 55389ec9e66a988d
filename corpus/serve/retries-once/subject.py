"""FastAPI, tenacity: a search over a remote embedding model."""

import asyncio

from fastapi import FastAPI, HTTPException
from tenacity import retry, stop_after_attempt, wait_fixed

app = FastAPI()
DOCUMENTS = {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 1.0]}


class Embedder:
    async def embed(self, text):
        await asyncio.sleep(0.003)
        return DOCUMENTS[text]


embedder = Embedder()


@retry(stop=stop_after_attempt(3), wait=wait_fixed(0.1), reraise=True)
async def embedded(text):
    return await embedder.embed(text)


async def nearest(text):
    x, y = await embedded(text)
    return max(DOCUMENTS, key=lambda name: x * DOCUMENTS[name][0] + y * DOCUMENTS[name][1])


@app.get("/search/{text}")
async def search(text: str):
    try:
        return {"nearest": await nearest(text)}
    except ConnectionError:
        raise HTTPException(503, "the embedding model does not answer") from None
