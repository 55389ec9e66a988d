"""Use the first region that answers, to save and to load. After an outage, the first region is back
with an old checkpoint, and the newer one is forgotten in the second.
"""

import json
import urllib.request
from collections.abc import Sequence


def _ask(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, method="GET" if body is None else "PUT")
    with urllib.request.urlopen(request, timeout=5) as response:
        return bytes(response.read())


def _first(regions: Sequence[str], body: bytes | None = None) -> bytes:
    """Ask the first region that answers."""
    for region in regions[:-1]:
        try:
            return _ask(f"{region}/checkpoint", body)
        except OSError:  # the region is down: fail over
            continue
    return _ask(f"{regions[-1]}/checkpoint", body)


def train(regions: Sequence[str], days: Sequence[float]) -> list[float]:
    """Add up the days, with a checkpoint after each. Return the checkpoint at the end."""
    state = {"day": 0, "total": 0.0}
    _first(regions, json.dumps(state).encode())
    for day in days:
        state = json.loads(_first(regions))
        state = {"day": state["day"] + 1, "total": state["total"] + day}
        _first(regions, json.dumps(state).encode())
    last = json.loads(_first(regions))
    return [last["day"], last["total"]]
