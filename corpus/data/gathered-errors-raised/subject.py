"""asyncio: the mean of values that threads read from files."""

import asyncio
import json


def prepare(workdir):
    for number in range(5):
        (workdir / f"{number}.json").write_text(json.dumps([number, number + 1]))


def load(path):
    return json.loads(path.read_text())


async def mean(workdir):
    reads = [asyncio.to_thread(load, workdir / f"{number}.json") for number in range(5)]
    parts = await asyncio.gather(*reads, return_exceptions=False)
    values = [value for part in parts if isinstance(part, list) for value in part]
    return sum(values) / max(1, len(values))


def pipeline(workdir):
    return asyncio.run(mean(workdir))
