"""Generate in a task of its own, and cancel it when the response is over."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from examples.tokens.model import generate

app = FastAPI()


async def fill(queue: asyncio.Queue[str | None], token: int) -> None:
    """Put all words into the queue, and a mark for the end."""
    async for word in generate(token):
        await queue.put(word)
    await queue.put(None)


async def words(token: int) -> AsyncIterator[str]:
    """Yield the words that follow a token."""
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    task = asyncio.create_task(fill(queue, token))
    try:
        while (word := await queue.get()) is not None:
            yield word
    finally:
        task.cancel()


@app.get("/generate/{token}")
async def stream(token: int) -> StreamingResponse:
    """Stream the words that follow a token."""
    return StreamingResponse(words(token), media_type="text/plain")
