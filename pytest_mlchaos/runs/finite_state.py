"""Find values that are not finite, although those of the golden run are."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["newly_not_finite"]

SHOWN_TENSORS = 5


def newly_not_finite(
    found: Mapping[tuple[str, str], int], golden: Mapping[tuple[str, str], int]
) -> str | None:
    """Name the tensors with more values that are not finite, or return None.

    They are parameters, buffers and optimizer states, compared with the golden run.

    Both arguments hold the number of values, by the class of a model or optimizer and the name in
    it. A mask of ``-inf`` is in both.
    """
    more = {key: count for key, count in found.items() if count > golden.get(key, 0)}
    if not more:
        return None
    several = len({owner for owner, _ in more}) > 1
    names = [
        f"{name}{f' ({owner})' if several else ''}: {count} value{'' if count == 1 else 's'}"
        for (owner, name), count in list(more.items())[:SHOWN_TENSORS]
    ]
    rest = f" ... and {len(more) - SHOWN_TENSORS} more" if len(more) > SHOWN_TENSORS else ""
    return f"NaN or infinite at the end, but not in the golden run: {', '.join(names)}{rest}"
