"""concurrent.futures: the lengths of documents, counted by two processes."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed


def prepare(workdir):
    for number in range(4):
        (workdir / f"{number}.json").write_text(json.dumps(["x"] * (number + 3)))


def length(path):
    return path.name, len(json.loads(path.read_text()))


def pipeline(workdir):
    paths = [workdir / f"{number}.json" for number in range(4)]
    lengths = {}
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        for future in as_completed([pool.submit(length, path) for path in paths]):
            name, found = future.result()
            lengths[name] = found
    return dict(sorted(lengths.items()))
