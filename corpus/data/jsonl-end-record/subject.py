"""json: the mean score in a file of JSON lines."""

import json


def prepare(workdir):
    with open(workdir / "scores.jsonl", "w") as file:
        for number in range(100):
            file.write(json.dumps({"score": number % 7}) + "\n")
        file.write(json.dumps({"end": 100}) + "\n")


def pipeline(workdir):
    records = []
    with open(workdir / "scores.jsonl") as file:
        for line in file:
            records.append(json.loads(line))
    scores = [record["score"] for record in records if "score" in record]
    if not records or records[-1] != {"end": len(scores)}:
        raise ValueError("scores.jsonl is not complete")
    return sum(scores) / max(1, len(scores))
