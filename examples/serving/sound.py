"""Give the feature store 50 ms, and answer with the prior if it fails or takes longer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request

from examples.serving.model import FeatureStore, Model


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connect to the store, and train, before the first request."""
    app.state.store = FeatureStore()
    app.state.model = Model(app.state.store)
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/score/{flower}")
async def score(flower: int, request: Request) -> dict[str, float]:
    """Return the probability that a flower is an iris virginica."""
    model = request.app.state.model
    try:
        async with asyncio.timeout(0.05):
            measurements = await request.app.state.store.get(flower)
    except (TimeoutError, ConnectionError):
        return {"score": model.prior}
    return {"score": model(measurements)}
