"""Define faults of text: typos, truncation, wrong encodings, and prompts of extreme length."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.validation import check_share, format_value
from ...errors import BadArgument
from .fault import TextFault
from .typos import add_typos, codes_of, misread, split

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Mojibake", "PromptLength", "Truncation", "Typos"]
LAYER = "Images and text"


@register
class Typos(TextFault):
    """Text reaches the code with typing mistakes.

    Args:
        rate: The probability of a mistake at each character that is not white space. There is at
            least one mistake in what passes.
        kind: ``"neighbour"`` (a key beside it on a QWERTY keyboard), ``"transposition"`` (of two
            characters), ``"deletion"``, ``"insertion"`` (a key beside it is pressed as well), or
            ``"any"`` of them. A character without such a neighbour is typed twice.

    Imitates: people who type in a hurry, or on a phone.

    Fidelity: mistakes are independent of each other, of the language, and of what a spelling
    correction would have done.

    Source: the noise of Belinkov and Bisk, Synthetic and Natural Noise Both Break Neural Machine
    Translation, https://arxiv.org/abs/1711.02173

    Example: @chaos.typos(rate=0.1, target="app:answer", side="arguments", at=0)
    """

    scales: ClassVar[Any] = {"rate": (0.01, 0.03, 0.06, 0.12, 0.25)}
    rate: float = 0.05
    kind: Literal["any", "neighbour", "transposition", "deletion", "insertion"] = "any"

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.rate):
            check_share(self.name, "rate", self.rate)

    def change(self, strings: Sequence[Any], seed: int) -> list[Any]:
        """Return strings with typos."""
        import numpy as np

        return add_typos(strings, self.kind, self.scaled("rate"), np.random.default_rng(seed))

    def why_not(self) -> str:
        """Return why texts did not change."""
        return "they hold only white space"


@register
class Truncation(TextFault):
    """Text, or bytes, reach the code without their end.

    Strings are struck in all parts of a batch: also in lists, NumPy arrays and text columns of
    pandas tables.

    Args:
        keep: The share that stays (rounded down).
        length: The largest length that stays, instead of ``keep``.
        unit: ``"characters"``, or ``"bytes"`` of UTF-8. A cut inside a character leaves U+FFFD at
            the end of a string, as a tolerant decoder does, and half a character in bytes.

    Imitates: a column that is too narrow, a context window that is too short, a response that broke
    off.

    Fidelity: a tokenizer's limit cuts at tokens, which this does not know.

    Example: @chaos.truncation(length=20, fields="text", at=0)
    """

    kinds = (str, bytes)
    random = False
    scales: ClassVar[Any] = {"keep": (0.9, 0.75, 0.5, 0.25, 0.1)}
    keep: float = 0.5
    length: int | None = None
    unit: Literal["characters", "bytes"] = "characters"

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.keep) and not 0 <= self.keep < 1:
            raise BadArgument(
                f"truncation: keep must be a share from 0 to below 1, got {format_value(self.keep)}"
            )
        if self.length is None or is_drawn(self.length):
            return
        if self.length < 0:
            raise BadArgument(
                f"truncation: length must be 0 or more, got {format_value(self.length)}"
            )
        if self.severity is not None or self.keep != 0.5:
            raise BadArgument(
                "truncation: length=, keep= and severity= exclude each other. Give one of them"
            )

    def change(self, strings: Sequence[Any], seed: int) -> list[Any]:
        """Return truncated strings."""
        if self.unit == "bytes":
            return [self._cut_bytes(text) for text in strings]
        if self.length is not None:
            return [text[: self.length] for text in strings]
        keep = self.scaled("keep")
        return [text[: int(len(text) * keep)] for text in strings]

    def _cut_bytes(self, text: str | bytes) -> str | bytes:
        raw = (
            text
            if isinstance(text, bytes) or text.isascii()
            else text.encode("utf-8", "surrogatepass")
        )
        cut = raw[: self.length if self.length is not None else int(len(raw) * self.scaled("keep"))]
        if len(cut) == len(raw):
            return text
        return (
            cut.decode("utf-8", "replace")
            if isinstance(cut, bytes) and isinstance(text, str)
            else cut
        )

    def why_not(self) -> str:
        """Return why texts did not change."""
        return "they are empty" if self.length is None else "none is longer"


@register
class Mojibake(TextFault):
    """Text reaches the code in the wrong encoding.

    Args:
        kind: ``"misread"``: the UTF-8 bytes are read as ``encoding``, so that é becomes Ã©. Bytes
            without a meaning there become U+FFFD. In most encodings only strings with characters
            beyond ASCII change. ``"replacement"``: single U+FFFD replace characters.
        encoding: For ``"misread"``, the wrong encoding: ``"cp1252"``, ``"latin-1"``,
            ``"utf-16-le"``, ….
        rate: For ``"replacement"``, the probability for each character.
        fraction: The share of the strings that is hit, of those that can change, at least one.

    Imitates: a file or a reply whose declared encoding is wrong, a lossy conversion upstream.

    Fidelity: text is misread once. Real pipelines do it twice and more (é becomes ÃƒÂ©).

    Source: the Unicode Standard on U+FFFD,
    https://www.unicode.org/versions/latest/core-spec/chapter-5/#G40630

    Example: @chaos.mojibake(encoding="latin-1", fraction=0.5, at=0)
    """

    scales: ClassVar[Any] = {"fraction": (0.05, 0.2, 0.5, 0.8, 1.0)}
    kind: Literal["misread", "replacement"] = "misread"
    encoding: str = "cp1252"
    rate: float = 0.05
    fraction: float = 1.0

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        for name in ("rate", "fraction"):
            if not is_drawn(getattr(self, name)):
                check_share(self.name, name, getattr(self, name))
        other = (
            {"misread": "rate", "replacement": "encoding"}.get(self.kind)
            if not is_drawn(self.kind)
            else None
        )
        if (
            other is not None
            and getattr(self, other) != {"rate": 0.05, "encoding": "cp1252"}[other]
        ):
            raise BadArgument(
                f"mojibake: kind={self.kind!r} takes no {other}, got "
                f"{format_value(getattr(self, other))}"
            )
        if is_drawn(self.encoding):
            return
        try:
            known = codecs.lookup(self.encoding)
            unsuited = known.name in ("utf-8", "utf-8-sig") or not isinstance(
                b"a".decode(self.encoding, "replace"), str
            )
        except LookupError:
            unsuited = True
        if unsuited:
            raise BadArgument(
                f"mojibake: encoding must be a text encoding other than UTF-8, got "
                f"{format_value(self.encoding)}"
            )

    def change(self, strings: Sequence[Any], seed: int) -> list[Any]:
        """Return strings in a wrong encoding."""
        import numpy as np

        rng = np.random.default_rng(seed)
        everything = self.kind == "replacement" or b"a".decode(self.encoding, "replace") != "a"
        open_to_it = [
            number
            for number, text in enumerate(strings)
            if (text if everything else not text.isascii())
        ]
        count = max(1, round(self.scaled("fraction") * len(open_to_it))) if open_to_it else 0
        if count < len(open_to_it):
            everything = self.kind == "replacement" or b"a".decode(self.encoding, "replace") != "a"
        open_to_it = [
            open_to_it[place]
            for place in np.sort(rng.choice(len(open_to_it), count, replace=False)).tolist()
        ]
        hit = [strings[number] for number in open_to_it]
        fresh = list(strings)
        hit_now = (
            _lost(hit, self.rate, rng)
            if self.kind == "replacement"
            else misread(hit, self.encoding)
        )
        for number, text in zip(open_to_it, hit_now, strict=True):
            fresh[number] = text
        return fresh

    def why_not(self) -> str:
        """Return why texts did not change."""
        return (
            "they are empty"
            if self.kind == "replacement"
            else "they are ASCII, which only kind='replacement' changes"
        )


def _lost(strings: list[str], rate: float, rng: np.random.Generator) -> list[str]:
    """Return strings with U+FFFD in place of some characters, at least one in all."""
    import numpy as np

    if not strings:
        return []
    given, lengths = codes_of(strings)
    codes = given.astype(np.uint16 if given.dtype.itemsize == 1 else np.uint32)
    hits = rng.random(len(codes), dtype=np.float32) < rate
    if not hits.any():
        hits[rng.integers(len(codes))] = True
    codes[hits] = 0xFFFD
    return split(codes, lengths)


@register
class PromptLength(TextFault):
    """A prompt of extreme length reaches the code.

    Args:
        kind: ``"long"`` (the text is repeated), ``"empty"``, ``"whitespace"`` (blanks, as long as
            the text), or ``"one_token"`` (its first word).
        length: For ``"long"``, the number of characters.

    Imitates: an empty input field, a pasted log file, a retrieval step that returns nothing or
    everything.

    Fidelity: lengths are in characters. The number of tokens depends on the tokenizer. A repeated
    text is easier to compress, and to cache, than a real one.

    Example: @chaos.prompt_length(kind="long", length=200_000, target="app:answer",
    side="arguments", at=0)
    """

    random = False
    scales: ClassVar[Any] = {"length": (1_000, 10_000, 50_000, 200_000, 1_000_000)}
    kind: Literal["long", "empty", "whitespace", "one_token"] = "long"
    length: int = 100_000

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.length) and self.length < 1:
            raise BadArgument(
                f"prompt_length: length must be 1 or more, got {format_value(self.length)}"
            )
        if (
            not is_drawn(self.kind)
            and self.kind != "long"
            and (self.severity is not None or self.length != 100_000)
        ):
            raise BadArgument(
                f"prompt_length: kind={self.kind!r} takes neither length= nor severity="
            )

    def change(self, strings: Sequence[Any], seed: int) -> list[Any]:
        """Return strings of the requested length."""
        return [_CHANGES[self.kind](text, self.scaled("length")) for text in strings]

    def why_not(self) -> str:
        """Return why texts did not change."""
        return f"they are {'that long already' if self.kind == 'long' else f'{self.kind} already'}"


def _longer(text: str, length: int) -> str:
    unit = f"{text} " if text else "a "
    return text if len(text) >= length else (unit * (length // len(unit) + 1))[:length]


_CHANGES: dict[str, Callable[[str, int], str]] = {
    "long": _longer,
    "empty": lambda text, length: "",
    "whitespace": lambda text, length: " " * max(1, len(text)),
    "one_token": lambda text, length: (text.split(None, 1) or ["a"])[0],
}
