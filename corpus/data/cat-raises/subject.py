"""fsspec: the number of words in the objects of a prefix."""

import json

import fsspec


def prepare(workdir):
    store = fsspec.filesystem("memory")
    store.pipe({f"/texts/{n}.json": json.dumps(["word"] * (n + 1)).encode() for n in range(5)})


def pipeline(workdir):
    store = fsspec.filesystem("memory")
    paths = [f"/texts/{number}.json" for number in range(5)]
    texts = store.cat(paths, on_error="raise")
    return sum(len(json.loads(text)) for text in texts.values())
