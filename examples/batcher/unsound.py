"""Put each request into the batch as it comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI

from examples.batcher.model import Batcher

Flower = Annotated[Any, Body()]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the batcher beside the requests."""
    app.state.batcher = Batcher()
    worker = asyncio.create_task(app.state.batcher.run())
    yield
    worker.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/classify")
async def classify(flower: Flower) -> dict[str, str]:
    """Return the species of a flower, given as a list of four measurements."""
    return {"species": await app.state.batcher.classify(flower)}
