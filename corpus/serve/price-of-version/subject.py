"""FastAPI, cachetools: prices that a model computes, cached until the item changes."""

import cachetools
from fastapi import FastAPI

app = FastAPI()


class Items:
    costs, versions = {"a": 10}, {"a": 1}

    def change(self, item, cost):
        self.costs[item] = cost
        self.versions[item] += 1


class Cache:
    def __init__(self):
        self.entries = cachetools.LRUCache(100)

    def get(self, item):
        return self.entries.get(item)

    def set(self, item, entry):
        self.entries[item] = entry


items, cache = Items(), Cache()


def price_of(item):
    entry = cache.get(item)
    version = items.versions[item]
    if entry is None or entry["version"] != version:
        entry = {"price": items.costs[item] * 1.2, "version": version}
        cache.set(item, entry)
    return entry["price"]


@app.get("/price/{item}")
async def price(item: str):
    return {"price": price_of(item)}


@app.put("/price/{item}/{cost}")
async def change(item: str, cost: int):
    items.change(item, cost)
    cache.set(item, {"price": cost * 1.2, "version": items.versions[item]})
    return {"cost": cost}
