"""Write to all regions, and need one. Read from all that answer, take the newest checkpoint, and
give it to a region that has come back with an older one.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any


def _ask(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, method="GET" if body is None else "PUT")
    with urllib.request.urlopen(request, timeout=5) as response:
        return bytes(response.read())


def _save(regions: Sequence[str], state: dict[str, Any]) -> None:
    """Write to each region. Raise if none has taken it."""
    errors = []
    for region in regions:
        try:
            _ask(f"{region}/checkpoint", json.dumps(state).encode())
        except OSError as error:
            errors.append(error)
    if len(errors) == len(regions):
        raise errors[0]


def _load(regions: Sequence[str]) -> dict[str, Any]:
    """Return the newest checkpoint, and repair the regions that are behind it."""
    found, errors = {}, []
    for region in regions:
        try:
            found[region] = json.loads(_ask(f"{region}/checkpoint"))
        except urllib.error.HTTPError:  # it answers, and has no checkpoint
            found[region] = {"day": -1}
        except OSError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    newest: dict[str, Any] = max(found.values(), key=lambda state: state["day"])
    behind = [region for region, state in found.items() if state["day"] < newest["day"]]
    if behind:
        _save(behind, newest)
    return newest


def train(regions: Sequence[str], days: Sequence[float]) -> list[float]:
    """Add up the days, with a checkpoint after each. Return the checkpoint at the end."""
    state = {"day": 0, "total": 0.0}
    _save(regions, state)
    for day in days:
        state = _load(regions)
        state = {"day": state["day"] + 1, "total": state["total"] + day}
        _save(regions, state)
    last = _load(regions)
    return [last["day"], last["total"]]
