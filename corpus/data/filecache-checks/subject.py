"""fsspec: the sum of a remote file that is cached locally."""

import json

import fsspec


def prepare(workdir):
    fsspec.filesystem("memory").pipe("/sales.json", json.dumps([1, 2, 3]).encode())


def put_new_day(workdir):
    fsspec.filesystem("memory").pipe("/sales.json", json.dumps([1, 2, 3, 40]).encode())


def pipeline(workdir):
    cache = {"cache_storage": str(workdir / ".cache"), "check_files": True}
    with fsspec.open("filecache::memory://sales.json", "rb", filecache=cache) as file:
        data = file.read()
    return sum(json.loads(data))
