"""Provide the cases for the faults of text: arguments of a call that are also a batch."""

from __future__ import annotations

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case


def arguments():
    """Positional and keyword arguments with text of several kinds, some of it beyond ASCII."""
    return ["Où est la gare ?", 3], {
        "text": ["a naïve text that is longer", "un café, s'il vous plaît", ""],
        "role": "user",
        "n": 2,
    }


FIELDS = {"fields": []}
WRONG = [lambda: ([1, 2], {}), lambda: ([""], {"role": "user"})]
SIDE = {"side": "arguments", "target": None}

CASES = {
    "typos": Case(
        create("typos"),
        arguments,
        neutral=lambda: ([""], {}),
        bad=[{"rate": 0}, {"rate": 2}, {"kind": "all"}, FIELDS, SIDE],
        wrong=WRONG,
    ),
    "typos at most": Case(
        create("typos", severity=5, kind="transposition"), arguments, bad=[{"rate": 0.5}]
    ),
    "truncation": Case(
        create("truncation"),
        arguments,
        neutral=lambda: ([""], {}),
        bad=[{"keep": 1}, {"keep": -0.1}, {"length": -1}, FIELDS, SIDE],
        wrong=WRONG,
    ),
    "truncation of bytes": Case(
        create("truncation", length=5, unit="bytes"),
        lambda: {"raw": b"1234567", "text": "ab\N{SNOWMAN}"},
    ),
    "mojibake": Case(
        create("mojibake"),
        arguments,
        bad=[
            {"encoding": "utf-8"},
            {"encoding": "klingon"},
            {"encoding": "rot13"},
            {"fraction": 0},
            {"rate": 0.5},
            FIELDS,
            SIDE,
        ],
        wrong=[*WRONG, lambda: "ASCII"],
    ),
    "mojibake by replacement": Case(
        create("mojibake", kind="replacement", rate=0.2),
        arguments,
        bad=[{"rate": 0}, {"encoding": "utf-16"}],
    ),
    "prompt_length": Case(
        create("prompt_length"),
        arguments,
        bad=[{"length": 0}, {"kind": "short"}, FIELDS, SIDE],
        wrong=WRONG[:1],
    ),
    "prompt_length of nothing": Case(
        create("prompt_length", kind="empty"),
        arguments,
        bad=[{"length": 5}, {"severity": 2}],
        wrong=WRONG,
    ),
}
