"""Wait for the feature store without a limit, and fail without it."""

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
    measurements = await request.app.state.store.get(flower)
    return {"score": request.app.state.model(measurements)}
