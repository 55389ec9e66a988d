"""Ordinary library code: a loader that skips bad rows, and asks a service again."""

from __future__ import annotations

import json
import time
from pathlib import Path


def fetch(key: str) -> float:
    """Return a value from a service on a different machine."""
    return float(len(key))


def enriched(path: Path, attempts: int = 3) -> list[float]:
    """Return the value of each key in a file of JSON lines."""
    values = []
    for line in path.read_text().splitlines():
        for attempt in range(attempts):
            try:
                values.append(fetch(json.loads(line)["key"]))
                break
            except ConnectionError:
                if attempt == attempts - 1:
                    raise
                time.sleep(2**attempt)
    return values
