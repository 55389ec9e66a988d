"""fsspec over HTTP: the number of records in three objects."""

import json

import fsspec
from local_server import serve

URL = ""


def prepare(workdir):
    global URL
    pages = {f"/part-{n}.json": json.dumps(list(range(n + 2))).encode() for n in range(3)}
    with serve(pages) as URL:
        yield


def pipeline(workdir):
    store = fsspec.filesystem("http", skip_instance_cache=True)
    parts = store.cat([f"{URL}/part-{number}.json" for number in range(3)], on_error="raise")
    return sum(len(json.loads(part)) for part in parts.values())
