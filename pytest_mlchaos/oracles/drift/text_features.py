"""Measure texts: length, repetition, script and language, refusals."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

__all__ = ["REFUSALS", "is_refusal", "is_valid", "language", "repetition", "words"]

REFUSALS = (
    r"\bI(?:['’]m| am) (?:sorry|unable|not able|afraid)\b",
    r"\bI (?:can(?:not|['’]t| not)|won['’]t|must decline|am not allowed)\b",
    r"\b(?:as an|I['’]m an|I am an) AI\b",
    r"\b(?:es tut mir leid|ich kann (?:leider |dir |ihnen |das )*nicht)\b",
    r"\b(?:je suis désolé|je ne peux pas)\b",
    r"\b(?:lo siento|no puedo)\b",
)
"""Patterns of a refusal. They are searched in the beginning of a text, without regard to case."""
BEGINNING = 200
"""A refusal stands in the first characters. Later, the same words mean something else."""
GRAM = 3
"""The number of words of a phrase that is counted as repeated."""
FEWEST_HINTS = 2
"""The fewest frequent words that make a guess of the language."""
_HINTS = {
    "English": "the and of to is in that it you for with this are on be not as have was or",
    "German": "der die und das ist nicht ein eine zu den mit sich auf für im dem von auch es ich",
    "French": "le la les des et est une un du dans que qui pour pas sur au avec ce il vous",
    "Spanish": "el los las que y en un una es por con para del se no su lo como más está",
    "Italian": "il di che è la per un una non sono del con si le della gli da anche nel più",
    "Portuguese": "o os as que e do da em um uma não para com por mais dos se na no é",
    "Dutch": "de het een van en is dat niet op te zijn voor met die er aan ook maar bij naar",
}
_BY_WORD: dict[str, list[str]] = {}
for _language, _frequent in _HINTS.items():
    for _word in _frequent.split():
        _BY_WORD.setdefault(_word, []).append(_language)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_MOST_READ = 2_000
"""The number of characters that are read for the language."""


def words(text: str) -> int:
    """Return the number of words that spaces separate. A text without spaces is counted by its
    characters, as in Chinese or Japanese.
    """
    parts = text.split()
    if len(parts) == 1 and len(text) > 1 and not text.isascii() and not _WORD_SPACED.match(text):
        return len(parts[0])
    return len(parts)


_WORD_SPACED = re.compile(r"[\u0000-\u2fff]")
"""The first character is in a script that puts spaces between words, or a sign."""


def repetition(text: str) -> float:
    """Return the share of phrases of three words that the text has used before, from 0 to 1."""
    parts = text.lower().split()
    total = len(parts) - GRAM + 1
    if total < 1:
        return 0.0
    different = len({tuple(parts[place : place + GRAM]) for place in range(total)})
    return 1 - different / total


def language(text: str) -> str:
    """Return the script of most letters, and for Latin letters a guess of the language.

    The guess counts frequent words. It is rough, but equally rough for both samples.
    """
    text = text[:_MOST_READ]
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if not scripts:
        return "no letters"
    script = scripts.most_common(1)[0][0]
    if script != "LATIN":
        return script.capitalize()
    hints: Counter[str] = Counter()
    for word in _WORD.findall(text.lower()):
        for name in _BY_WORD.get(word, ()):
            hints[name] += 1
    best = hints.most_common(1)
    return best[0][0] if best and best[0][1] >= FEWEST_HINTS else "Latin"


def _script(letter: str) -> str:
    if letter.isascii():
        return "LATIN"
    name = unicodedata.name(letter, "OTHER").split()[0]
    return _SCRIPTS.get(name, name)


_SCRIPTS = {"HIRAGANA": "JAPANESE", "KATAKANA": "JAPANESE", "CJK": "CHINESE", "HANGUL": "KOREAN"}
"""Names of scripts by the first word of the names of their letters, if these differ."""


def is_refusal(patterns: tuple[re.Pattern[str], ...]) -> Callable[[str], bool]:
    """Return a function that finds one of the patterns in the beginning of a text."""
    return lambda text: any(pattern.search(text[:BEGINNING]) for pattern in patterns)


def is_valid(validator: Callable[[str], Any], text: str) -> bool:
    """Return False if a validator raises an exception, or returns False."""
    try:
        return validator(text) is not False
    except Exception:  # noqa: BLE001 - each exception of a validator says that a text is not valid
        return False
