"""joblib: the sum of a file that is cached between runs."""

import hashlib
import json

import joblib


def prepare(workdir):
    (workdir / "sales.json").write_text(json.dumps([1, 2, 3]))


def put_new_day(workdir):
    (workdir / "sales.json").write_text(json.dumps([1, 2, 3, 40]))


def total(path, key):
    return sum(json.loads(path.read_text()))


def pipeline(workdir):
    cached = joblib.Memory(workdir / ".cache", verbose=0).cache(total)
    path = workdir / "sales.json"
    key = hashlib.sha256(path.read_bytes()).hexdigest()
    return cached(path, key)
