"""FastAPI: a scorer with a feature store."""

import asyncio

from fastapi import FastAPI

app = FastAPI()
REQUESTS = [f"/score/{user}" for user in range(8)] * 2


class FeatureStore:
    async def get(self, user):
        await asyncio.sleep(0.002)
        return {"visits": user % 7, "spent": user * 3.5}


store = FeatureStore()


@app.get("/score/{user}")
async def score(user: int):
    try:
        features = await asyncio.wait_for(store.get(user), 0.05)
    except TimeoutError:
        return {"score": 0.5, "default": True}
    return {"score": features["spent"] / (1 + features["visits"])}
