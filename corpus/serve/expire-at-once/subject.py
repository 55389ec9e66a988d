"""FastAPI, redis: three answers a second for each user."""

import contextlib

import fakeredis
import redis
from fastapi import FastAPI, HTTPException

app = FastAPI()
server = fakeredis.FakeServer()


class Limits:
    def __init__(self):
        self.client = fakeredis.FakeAsyncRedis(server=server)

    async def start(self, key, seconds):
        return await self.client.set(key, 0, ex=seconds, nx=True)

    async def count(self, key):
        return await self.client.incr(key)

    async def expire(self, key, seconds):
        return await self.client.expire(key, seconds)


@app.get("/answer")
async def answer(user: str):
    limits = Limits()
    with contextlib.suppress(redis.ConnectionError):
        await limits.start(user, 1)
        count = await limits.count(user)
        if count > 3:
            raise HTTPException(429, "three answers a second", {"Retry-After": "1"})
    return {"answer": 42}
