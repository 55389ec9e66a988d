"""Define the fault of a stream that ends early."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ...core.faults import Fault, is_drawn, register
from ...core.network import NETWORK
from ...core.sites import Key, Visit
from ...core.validation import format_value, index
from ...errors import BadArgument
from ..calls import error_name, make_error
from ..network import CutConnection

__all__ = ["StreamCut"]
LAYER = "Calls and services"
DEFAULT_SHARE = 0.5


@register
class StreamCut(Fault):
    """A stream ends early: tokens of a model, events of a source, or the body of an answer.

    A program that does not look for the end has accepted a part for the whole.

    Args:
        target: A function that returns the stream: a generator, an async generator, or one that
            returns an iterator. ``at`` counts its calls. Without it, the answer of an HTTP request
            is cut, as by ``cut_connection``, and ``at`` counts requests.
        after: The number of items that arrive. If it is not given, the search tries each number,
            and without a search it is 1. Without a target: a share (0.5), or a number of bytes.
        how: ``"end"``: the stream ends as if it was complete. ``"error"``: it raises ``error``. If
            the visits are searched and it is not given, both are tried. Without a target, the
            client library decides.
        error: The exception, as for ``call_failure``.

    Imitates: a model server that dies in the middle of an answer, an upstream provider that closes
    its connection, a worker that is killed.

    Fidelity: the function's own clean-up runs at the cut, because the stream is closed.

    Example: @chaos.stream_cut(target="json:JSONEncoder.iterencode", after=3, how="end", at=0)
    """

    random = False
    searchable = ("after",)
    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"how": ("end", "error")}
    target: str | None = None
    after: Any = None
    how: Literal["end", "error"] = "end"
    error: Any = "ConnectionError"

    @property
    def site(self) -> str:  # type: ignore[override]
        """Return the site, which depends on the target."""
        return NETWORK if self.target is None else "call.stream"

    @property
    def key(self) -> Key:
        """Count the calls of the target, or all requests."""
        return self.site if self.target is None else (self.site, self.target)

    def check(self) -> None:
        """Check the parameters."""
        if self.target is not None and not is_drawn(self.target) and not self.target.strip():
            raise BadArgument(
                f"{self.name}: target must be 'pkg.mod:function', got {format_value(self.target)}"
            )
        if not is_drawn(self.error):
            object.__setattr__(self, "error", error_name(self.error, self.name))
        if self.after is None or is_drawn(self.after):
            return
        if self.target is None:
            try:
                CutConnection(after=self.after)
            except BadArgument as error:
                text = str(error).replace(CutConnection.name, self.name, 1)
                raise BadArgument(text) from None
        elif index(self.after) is None:
            raise BadArgument(
                f"{self.name}: after must be a number of items, 0 or more, got "
                f"{format_value(self.after)}"
            )

    def possible(self, visit: Visit) -> bool:
        """Note how many items the streams have. Without a target, the kind of end has no effect."""
        if self.target is None:
            return self.how == "end"
        visit.payload.follow(functools.partial(_measure, visit.measures))
        return True

    def apply(self, visit: Visit) -> Any:
        """End the stream when so many items have arrived."""
        if self.target is None:
            after = DEFAULT_SHARE if self.after is None else self.after
            return CutConnection(after=after).apply(visit)
        visit.skip()
        visit.note(how=self.how)
        make = functools.partial(make_error, self.error, self.target, self.name)
        return dataclasses.replace(
            visit.payload,
            after=1 if self.after is None else self.after,
            error=make if self.how == "error" else None,
            took_effect=visit.record_injection,
        )


def _measure(measures: dict[str, int], items: int) -> None:
    measures["after"] = max(measures.get("after", 0), items)
