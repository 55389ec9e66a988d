"""polars: the visits of a day, whose hours arrive as files."""

import json

import polars as pl


def prepare(workdir):
    for hour in range(6):
        (workdir / f"hour-{hour}.json").write_text(json.dumps([{"visits": 10 + hour}]))


def pipeline(workdir):
    paths = sorted(workdir.glob("hour-*.json"))
    hours = [pl.DataFrame(json.loads(path.read_text())) for path in paths]
    return int(pl.concat(hours)["visits"].sum())
