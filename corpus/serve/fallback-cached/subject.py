"""FastAPI, cachetools: prices from a store, cached for an hour."""

import cachetools
from fastapi import FastAPI

app = FastAPI()
cache = cachetools.TTLCache(1000, ttl=3600)


class Store:
    async def get(self, item):
        return item * 9.5


store = Store()


async def price_of(item):
    if item in cache:
        return cache[item]
    try:
        price = await store.get(item)
    except ConnectionError:
        price = None
    cache[item] = price
    return price


@app.get("/price/{item}")
async def price(item: int):
    return {"price": await price_of(item)}
