"""Reads measurements, and tries again after an error."""

import json
import time


def prepare(workdir):
    with open(workdir / "measurements.jsonl", "w") as file:
        for number in range(3000):
            file.write(json.dumps({"number": number, "value": number % 17}) + "\n")
        file.write("END\n")


def pipeline(workdir):
    values = []
    for attempt in range(4):
        try:
            with open(workdir / "measurements.jsonl") as file:
                for line in file:
                    values.append(None if line == "END\n" else json.loads(line)["value"])
            break
        except OSError:
            if attempt == 3:
                raise
            time.sleep(2**attempt)
    if values[-1:] != [None]:
        raise EOFError("measurements.jsonl is not complete")
    return sum(values[:-1])
