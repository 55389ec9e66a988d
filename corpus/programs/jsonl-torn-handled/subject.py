"""A log that is the checkpoint, and mends itself."""

import json
import os


def recover(path):
    """The complete lines; what is behind them is cut off."""
    if not os.path.exists(path):
        return []
    with open(path, "r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def train(workdir, steps):
    path = os.path.join(workdir, "metrics.jsonl")
    rows = recover(path)
    value = rows[-1]["value"] if rows else 1.0
    with open(path, "ab", buffering=0) as log:
        for step in range(len(rows), steps):
            value = value * 0.9 + 0.01 * step
            rows.append({"step": step, "value": value})
            log.write(json.dumps(rows[-1]).encode() + b"\n")
    return {"rows": rows, "step": len(rows)}
