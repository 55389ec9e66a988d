"""Describe the stream that a call returns, so that a fault can end it early."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

__all__ = ["StreamPlan"]


@dataclasses.dataclass(frozen=True, slots=True)
class StreamPlan:
    """The payload of a visit of ``call.stream``: what happens to the stream.

    Attributes:
        after: The number of items after which it ends early, or None.
        error: A function that returns the exception that it raises then, or None for a plain end.
        took_effect: A function to call when it ends early.
        follow: A function to call with the number of items, when the stream ends by itself.
    """

    after: int | None = None
    error: Callable[[], BaseException] | None = None
    took_effect: Callable[[BaseException | None], None] = lambda error: None
    follow: Callable[[Callable[[int], None]], None] = lambda follower: None
