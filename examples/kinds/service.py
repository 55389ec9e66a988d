"""Serve predictions with FastAPI. Features come from a store that may be slow."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

app = FastAPI()


class FeatureStore:
    """A store of features on a different machine."""

    async def get(self, user: int) -> float:
        """Return the feature of one user."""
        await asyncio.sleep(0.005)
        return user / 10


store = FeatureStore()


@app.get("/predict/{user}")
async def predict(user: int) -> dict[str, float]:
    """Return a score. Without the feature in time, return the average score."""
    try:
        return {"score": await asyncio.wait_for(store.get(user), 0.05)}
    except (TimeoutError, ConnectionError):
        return {"score": 0.5}
