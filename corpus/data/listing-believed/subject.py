"""fsspec: shards are written, listed and merged."""

import json

import fsspec


def prepare(workdir):
    store = fsspec.filesystem("memory")
    if store.exists("/shards"):
        store.rm("/shards", recursive=True)


def pipeline(workdir):
    store = fsspec.filesystem("memory")
    for number in range(4):
        with store.open(f"/shards/{number}.json", "w") as file:
            json.dump([number] * 10, file)
    merged = []
    shards = sorted(store.glob("/shards/*.json"))
    for path in shards:
        with store.open(path) as file:
            merged += json.load(file)
    return merged
