"""Values that must not appear in what the tool writes: made at run time, so that no code names
them. The examples import this file, too.
"""

from __future__ import annotations

import base64
import json
import random
import string

__all__ = ["KINDS", "canaries", "spellings"]

KINDS = ("word", "email", "sentence", "path", "digits", "hexadecimal", "number", "whole number")


def canaries(count: int) -> list[object]:
    """Return this many canaries, of each kind in turn, always the same."""
    rng = random.Random(20261128)
    return [_canary(KINDS[place % len(KINDS)], rng) for place in range(count)]


def _canary(kind: str, rng: random.Random) -> object:
    def word(length: int) -> str:
        return "zq" + "".join(rng.choices(string.ascii_lowercase, k=length))

    made = {
        "word": lambda: word(8),
        "email": lambda: f"{word(5)}@{word(4)}.org",
        "sentence": lambda: f"{word(6)} {word(6)} {word(6)}",
        "path": lambda: f"/srv/{word(6)}/{word(6)}.csv",
        "digits": lambda: "".join(rng.choices("123456789", k=12)),
        "hexadecimal": lambda: f"{rng.getrandbits(64):016x}a1",
        "number": lambda: rng.uniform(1e5, 1e7),
        "whole number": lambda: rng.randrange(10**9, 10**10),
    }
    return made[kind]()


def spellings(canary: object) -> set[str]:
    """The ways in which a canary may be written."""
    text = str(canary)
    found = {
        text,
        repr(canary),
        json.dumps(canary),
        text.encode().hex(),
        base64.b64encode(text.encode()).decode().rstrip("="),
    }
    if isinstance(canary, float):
        found |= (
            {f"{canary:.{digits}g}" for digits in (6, 7, 9, 12)}
            | {f"{canary:.{digits}f}" for digits in (0, 1, 2, 3)}
            | {canary.hex()}
        )
    if isinstance(canary, int):
        found |= {f"{canary:x}", f"{canary:,}", f"{canary:.6g}"}
    if isinstance(canary, str):
        found |= {
            part
            for part in canary.replace("/", " ").replace("@", " ").replace(".", " ").split()
            if part.startswith("zq")
        }
    return found
