"""Define a fault of a table's texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ...core.faults import register
from .base import Column, UnsupportedColumn, places
from .fault import SHARES, ColumnFault, Spot, rows_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["EncodingErrors"]
LAYER = "Tables"

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@register
class EncodingErrors(ColumnFault):
    """Texts of a table were read in a different encoding than they were written in.

    Args:
        column: A name, or a list of names. Without it, all columns of texts.
        kind: ``"replacement"``: one character became U+FFFD, as for a byte that is not valid UTF-8.
            ``"mojibake"``: UTF-8 was read as Latin-1 (``é`` became ``Ã©``). It leaves ASCII texts
            as they are, so a column of ASCII alone is refused.

    Imitates: an export in the encoding of a different system, a scraper that trusts a wrong header,
    ``errors="replace"``.

    Fidelity: a share of the texts, not a stretch of the file. ``"replacement"`` puts one character
    in each text.

    Source: Jenga (Schelter et al., EDBT 2021), ``BrokenCharacters``.

    Example: ``@chaos.encoding_errors(column="city", kind="mojibake", at=0)``
    """

    fits = ("text",)
    scales = SHARES
    fraction: float = 0.1
    kind: Literal["replacement", "mojibake"] = "replacement"

    def changed(self, column: Column, spot: Spot) -> tuple[Any, int]:
        """Return the column with broken texts at these places, or at others if none of these can
        break.
        """
        where = rows_of(column, self.scaled("fraction"), spot.rng)
        texts = column.texts(where)
        hit = self._breakable(texts)
        if not hit:
            where, texts, hit = self._elsewhere(column, spot.rng)
        if len(hit) < len(texts):
            where, texts = where[hit], [texts[place] for place in hit]
        return column.with_texts(where, self._broken(texts, spot.rng)), len(hit)

    def _breakable(self, texts: list[str]) -> list[int]:
        """Return the indices of the texts that can break."""
        if self.kind == "mojibake":
            return [place for place, text in enumerate(texts) if not text.isascii()]
        return [place for place, text in enumerate(texts) if text and text.strip(REPLACEMENT)]

    def _elsewhere(
        self, column: Column, rng: np.random.Generator
    ) -> tuple[Any, list[str], list[int]]:
        """Return a share of all texts that can break."""
        import numpy as np

        nulls = column.closed()
        present = np.arange(column.size) if nulls is None else np.flatnonzero(~nulls)
        texts = column.texts(present)
        breakable = self._breakable(texts)
        if not breakable:
            ascii_alone = "holds only ASCII, which kind='mojibake' does not change"
            raise UnsupportedColumn(
                ascii_alone if self.kind == "mojibake" else "holds only empty texts"
            )
        count = max(1, round(self.scaled("fraction") * len(breakable)))
        hit = [breakable[place] for place in places(rng, len(breakable), count)]
        return present, texts, hit

    def _broken(self, texts: list[str], rng: np.random.Generator) -> list[str]:
        if self.kind == "mojibake":
            return [text.encode("utf-8", "surrogatepass").decode("latin-1") for text in texts]
        import numpy as np

        ends = (
            (rng.random(len(texts)) * np.fromiter(map(len, texts), np.int64, len(texts)))
            .astype(np.int64)
            .tolist()
        )
        broken = [
            f"{text[:place]}{REPLACEMENT}{text[place + 1 :]}"
            for text, place in zip(texts, ends, strict=True)
        ]
        return [
            _other(text, place) if text == was else text
            for text, was, place in zip(broken, texts, ends, strict=True)
        ]


def _other(text: str, place: int) -> str:
    """Replace a different character, because the one at this index is U+FFFD already."""
    while text[place] == REPLACEMENT:
        place = (place + 1) % len(text)
    return f"{text[:place]}{REPLACEMENT}{text[place + 1 :]}"
