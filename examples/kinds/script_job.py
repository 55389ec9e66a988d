"""Estimate pi, and keep the count of each round: ``python script_job.py FOLDER``."""

import json
import os
import random
import sys

ROUNDS = 6


def main() -> None:
    """Count points in a circle, round by round."""
    file = os.path.join(sys.argv[1], "counts.json")
    counts = []
    if os.path.exists(file):
        with open(file) as saved:
            counts = json.load(saved)
    for number in range(len(counts), ROUNDS):
        draw = random.Random(number).random
        counts.append(sum(draw() ** 2 + draw() ** 2 < 1 for _ in range(100)))
        with open(f"{file}.tmp", "w") as new:
            json.dump(counts, new)
        os.replace(f"{file}.tmp", file)


if __name__ == "__main__":
    main()
