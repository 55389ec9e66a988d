"""backoff: the price of a basket."""

import json

import backoff


def prepare(workdir):
    (workdir / "prices.json").write_text(json.dumps({"apple": 3, "pear": 4}))


@backoff.on_exception(backoff.expo, OSError, max_tries=3, jitter=None, raise_on_giveup=False)
def prices(path):
    with open(path) as file:
        return json.load(file)


def pipeline(workdir):
    known = prices(workdir / "prices.json") or {}
    return 2 * known.get("apple", 0) + known.get("pear", 0)
