"""``assert_no_text_drift``: generated texts by length, refusals, language, repetition, validity."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from pytest_mlchaos import assert_no_text_drift
from pytest_mlchaos.errors import BadArgument, Drifted
from pytest_mlchaos.oracles.drift.text_features import language, repetition, words

RANDOM = random.Random(0)
VOCABULARY = [
    "the",
    "model",
    "answers",
    "a",
    "question",
    "about",
    "data",
    "with",
    "some",
    "words",
    "and",
    "a",
    "plan",
    "that",
    "is",
    "good",
]


def texts(count):
    """Return random texts of 5 to 30 words."""
    return [" ".join(RANDOM.choices(VOCABULARY, k=RANDOM.randint(5, 30))) for _ in range(count)]


GOLDEN, SAME = texts(120), texts(100)
JSON = [json.dumps({"answer": number}) for number in range(80)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat is in the house", "English"),
        ("der Hund ist nicht das Problem", "German"),
        ("le chat est dans la maison", "French"),
        ("el gato está en la casa", "Spanish"),
        ("Привет, как дела?", "Cyrillic"),
        ("你好世界", "Chinese"),
        ("こんにちは", "Japanese"),
        ("xqz", "Latin"),
        ("123 !?", "no letters"),
    ],
)
def test_script_and_language_are_guessed(text, expected):
    """By the script of most letters, and frequent words."""
    assert language(text) == expected


def test_words_and_repetition_are_counted():
    """Texts without spaces by their characters."""
    assert [words(one) for one in ("", "one", "one two", "你好世界", "Straße")] == [0, 1, 2, 4, 1]
    assert repetition("a b c d e") == 0.0
    assert repetition("no no no no no") == pytest.approx(2 / 3)
    assert repetition("hi") == 0.0


@pytest.mark.parametrize(
    ("current", "keywords", "message"),
    [
        (
            [*SAME[:70], *["I'm sorry, but I can't help with that."] * 30],
            {},
            "refusals: 30.0% instead of 0.0% (p = ",
        ),
        ([one + " " + one for one in SAME], {}, "length in words: median "),
        ([*SAME, *[" "] * 15], {}, "empty: 13.0% instead of 0.0%"),
        (
            ["der Hund ist nicht das Problem und die Katze auch nicht"] * 100,
            {},
            "language: German 100.0% instead of 0.0%",
        ),
        (["yes yes yes yes yes yes yes yes"] * 100, {}, "repetition: KS distance"),
        (
            [one.replace("the", "NO WAY") for one in SAME],
            {"refusals": lambda text: "NO WAY" in text},
            "refusals: ",
        ),
        (
            [one.upper() for one in SAME],
            {"language_of": lambda text: "loud" if text.isupper() else "quiet"},
            "the reference's category number 1 by frequency makes up 0.0%",
        ),
        (
            [one.upper() for one in SAME],
            {"embed": lambda found: np.array([[one.isupper(), 1.0] for one in found])},
            "embedding: MMD",
        ),
        ([], {}, "cannot be judged: current has no texts"),
        ([*SAME, None], {}, "must be texts, but 1 of 101 values are not"),
        (SAME[:1], {"alpha": 0.001}, "1 texts against 120 are too few"),
    ],
)
def test_a_drift_of_texts_is_told(current, keywords, message):
    """The message names the property, with its value now and before."""
    with pytest.raises(Drifted) as caught:
        assert_no_text_drift(GOLDEN, current, **keywords)
    assert message in str(caught.value)
    assert "model answers" not in str(caught.value)


def test_texts_of_the_same_kind_pass():
    """Also with all judgements."""
    assert_no_text_drift(GOLDEN, SAME)
    assert_no_text_drift(
        GOLDEN,
        SAME,
        validator=len,
        embed=lambda found: np.array([[len(one), one.count("e")] for one in found]),
    )


def test_validity_is_judged_by_the_users_function():
    """An exception or False means invalid. None is what validators of schemas return."""

    def schema(text):
        if "answer" not in json.loads(text):
            raise KeyError("answer")

    broken = [*JSON[:60], *[one[:-1] for one in JSON[:20]]]
    renamed = [*JSON[:60], *[one.replace("answer", "reply") for one in JSON[:20]]]
    assert_no_text_drift(JSON, JSON[::-1], validator=schema)
    for current, validator in [
        (broken, json.loads),
        (renamed, schema),
        (renamed, lambda text: "answer" in text),
    ]:
        with pytest.raises(Drifted, match=r"valid: 75.0% instead of 100.0%"):
            assert_no_text_drift(JSON, current, validator=validator)


def test_few_false_alarms():
    """25 pairs without drift: at most alpha, and three standard errors."""
    alarms = 0
    for _ in range(25):
        try:
            assert_no_text_drift(texts(40), texts(30))
        except Drifted:
            alarms += 1
    assert alarms <= 4


@pytest.mark.parametrize(
    ("reference", "keywords", "message"),
    [
        ([], {}, "reference has no texts"),
        ("abc", {}, "reference must be a list of texts"),
        ([1, 2], {}, "2 of 2 values are not"),
        (GOLDEN[:3], {}, "a reference of 3 texts is too small"),
        (GOLDEN, {"refusals": ["("]}, "refusals has a wrong pattern"),
        (GOLDEN, {"refusals": "sorry"}, "refusals must be a list of regular expressions"),
        (GOLDEN, {"validator": 3}, "validator must be a function"),
        (GOLDEN, {"embed": lambda found: [1]}, "a vector for each of 120 texts"),
        (GOLDEN, {"alpha": 0}, "alpha must be between 0 and 1"),
    ],
)
def test_arguments_of_no_use_are_refused(reference, keywords, message):
    """Nothing passes for want of a judgement."""
    with pytest.raises(BadArgument) as caught:
        assert_no_text_drift(reference, SAME, **keywords)
    assert message in str(caught.value)
