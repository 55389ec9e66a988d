"""FastAPI, redis: embeddings behind a cache."""

import json

import fakeredis
import redis
from fastapi import FastAPI

app = FastAPI()
client = fakeredis.FakeRedis(server=fakeredis.FakeServer())


class Cache:
    def get(self, key):
        found = client.get(key)
        return None if found is None else json.loads(found)

    def set(self, key, value):
        client.set(key, json.dumps(value))


cache = Cache()


def embedded(text):
    return [ord(letter) / 128 for letter in text]


@app.get("/vector/{text}")
async def vector(text: str):
    try:
        found = cache.get(text)
    except redis.ConnectionError:
        found = None
    if found is None:
        found = embedded(text)
        cache.set(text, found)
    return {"vector": found}
