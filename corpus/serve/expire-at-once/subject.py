"""FastAPI, redis: three answers a second for each user."""

import contextlib

import fakeredis
import redis
from fastapi import FastAPI, HTTPException

app = FastAPI()
server = fakeredis.FakeServer()


class Redis:
    async def command(self, *words):
        return await fakeredis.FakeAsyncRedis(server=server).execute_command(*words)


limits = Redis()


@app.get("/answer")
async def answer(user: str):
    with contextlib.suppress(redis.ConnectionError):
        await limits.command("SET", user, 0, "EX", 1, "NX")
        count = await limits.command("INCR", user)
        if count > 3:
            raise HTTPException(429, "three answers a second", {"Retry-After": "1"})
    return {"answer": 42}
