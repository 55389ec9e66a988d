"""Compare replies with what two golden loads have in common."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.privacy import key_text
from ..core.replies import CallMade, Reply
from ..core.sites import Key
from ..errors import BadArgument, GoldenRunFailed
from ..oracles.state import first_difference

__all__ = ["OWN_CALL", "Gauge", "GoldenLoad", "GoldenReplies", "Holdings"]

By = Callable[[Reply], Any]
OWN_CALL = "the app's own call"
"""The name of the task that handles a request."""
SHOWN_PARTS = 3
"""The number of unjudged parts that a message names."""
_NONE: Any = object()
_WORDS = re.compile(r"\w+|\W+")


@dataclasses.dataclass(frozen=True, slots=True)
class Gauge:
    """A number that an app holds, before and after a load, and while it rested.

    ``moved`` is true if it differed from the beginning while the app worked. ``steps`` are some of
    these differences.
    """

    kind: str
    before: int
    after: int
    rests: tuple[int, ...] = ()
    moved: bool = False
    steps: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Holdings:
    """Hold what is new in an app after a load.

    Attributes:
        tasks: The number of new tasks that no timer will wake, by name.
        places: The line at which one of them waits, by name.
        resources: The threads, descriptors and child processes before each request that came while
            the app rested, and after the last: their names, by identity.
        gauges: The semaphores, locks and containers, by name.
    """

    tasks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    resources: Sequence[Mapping[str, str]] = ()
    gauges: Mapping[str, Gauge] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class GoldenLoad:
    """Hold what a load has shown, under faults or without them.

    Attributes:
        replies: Its replies.
        visits: The number of visits of each site.
        calls: The calls of each counted target, and the visits of each counted site.
        lingered: The seconds for which the load waited for calls whose clients had left.
        between: The strikes so far between requests: the beginning and the end of each, in seconds
            from the start of the load.
        holdings: What the app holds after it, if the test judges leaks.
        companions: The replies to the clean requests before, during and after it.
    """

    replies: Sequence[Reply]
    visits: Mapping[Key, int]
    calls: Mapping[Key, Sequence[CallMade]] = dataclasses.field(default_factory=dict)
    lingered: float = 0.0
    between: Sequence[tuple[float, float]] = ()
    holdings: Holdings | None = None
    companions: Sequence[Reply] = ()


class GoldenReplies:
    """Compare replies with those of the golden load.

    If a reply differs, the load is played a second time. Parts that differ between the two golden
    loads are not judged: times, request ids, and state that cannot be reset. Raise
    ``GoldenRunFailed`` if all requests fail without any fault.
    """

    def __init__(self, play: Callable[[int], GoldenLoad]) -> None:
        self._play = play
        self._unjudged: dict[str, None] = {}
        self.judged = False
        """True if some part of some reply has been compared."""

    @functools.cached_property
    def _first(self) -> GoldenLoad:
        played = self._play(0)
        if not any(reply.ok for reply in played.replies):
            first = played.replies[0]
            raise GoldenRunFailed(
                f"without any fault, all {len(played.replies)} requests of this load fail, so they "
                f"cannot show the effect of a fault: "
                f"{first}: {first.outcome}"
            )
        return played

    @functools.cached_property
    def _second(self) -> Sequence[Reply]:
        return self._play(1).replies

    def visits(self, key: Key) -> int:
        """Return the number of visits of a site in the golden load."""
        return self._first.visits.get(key, 0)

    @property
    def load(self) -> GoldenLoad:
        """Return the first golden load."""
        return self._first

    def reply(self, place: int) -> Reply:
        """Return the golden reply at an index."""
        return self._first.replies[place]

    def difference(
        self,
        place: int,
        reply: Reply,
        *,
        by: By | None = None,
        rtol: float = 0.0,
        atol: float = 0.0,
    ) -> str | None:
        """Return how a reply differs from the golden reply at its index, or None."""
        golden = self._first.replies[place]
        comparison = _Common(rtol, atol)
        if comparison.difference(reply, golden, golden, by) is None:
            self.judged = True
            return None
        comparison = _Common(rtol, atol)
        found = comparison.difference(reply, golden, self._second[place], by)
        self.judged |= comparison.judged or found is not None
        self._unjudged.update(dict.fromkeys(comparison.unjudged))
        return found

    @property
    def remark(self) -> str:
        """Name the parts that were not judged. Return "" if all were."""
        if not self._unjudged:
            return ""
        named = [
            *list(self._unjudged)[:SHOWN_PARTS],
            *(["..."] if len(self._unjudged) > SHOWN_PARTS else []),
        ]
        return (
            f"not judged, because two golden loads differ there: {', '.join(named)} "
            "(for example a time, an id, or state of the app that cannot be reset: create the app "
            "inside the test)"
        )


class _Common:
    """Compare a reply with two golden replies."""

    def __init__(self, rtol: float, atol: float) -> None:
        self._difference = functools.partial(first_difference, rtol=rtol, atol=atol)
        self.unjudged: list[str] = []
        self.judged = False

    def difference(self, reply: Reply, one: Reply, other: Reply, by: By | None) -> str | None:
        if by is not None:
            return self._values(by(reply), by(one), by(other), "by(reply)")
        if _kind(one) != _kind(other):
            self.unjudged.append("the outcome")
            return None
        if _kind(reply) != _kind(one):
            return f"{reply.outcome} instead of {one.outcome}"
        self.judged = one.status is not None or one.error is not None
        if reply.content is None:
            return self._values(reply.value, one.value, other.value, "value")
        try:
            values = reply.json, one.json, other.json
        except BadArgument:
            return self._values(_text(reply), _text(one), _text(other), "content")
        return self._values(*values, "json")

    def _values(self, actual: Any, one: Any, other: Any, path: str) -> str | None:
        """Return the first difference between ``actual`` and what ``one`` and ``other`` have in
        common.
        """
        if one is other or self._difference(one, other, name=path) is None:
            self.judged = True
            return self._difference(actual, one, name=path)
        if type(one) is not type(other):
            self.unjudged.append(path)
            return None
        if type(actual) is not type(one):
            return f"{path}: {type(actual).__name__} instead of {type(one).__name__}"
        if isinstance(one, Mapping):
            return self._mappings(actual, one, other, path)
        if isinstance(one, (list, tuple)) and len(one) == len(other) == len(actual):
            differences = (
                self._values(*three, f"{path}[{place}]")
                for place, three in enumerate(zip(actual, one, other, strict=True))
            )
            return next((found for found in differences if found), None)
        if dataclasses.is_dataclass(one):
            return self._mappings(_fields(actual), _fields(one), _fields(other), path)
        if isinstance(one, str):
            return self._texts(actual, one, other, path)
        self.unjudged.append(path)
        return None

    def _mappings(
        self, actual: Mapping[Any, Any], one: Mapping[Any, Any], other: Mapping[Any, Any], path: str
    ) -> str | None:
        keys = list(dict.fromkeys([*one, *other, *actual]))
        paths = {
            key: f"{path}[{key_text(key, place, len(keys))}]" for place, key in enumerate(keys)
        }
        for key in [key for key in one if key in other]:
            if key not in actual:
                return f"{paths[key]}: missing"
            if found := self._values(actual[key], one[key], other[key], paths[key]):
                return found
        extra = next((key for key in actual if key not in one and key not in other), _NONE)
        self.unjudged += [paths[key] for key in {**one, **other} if (key in one) != (key in other)]
        return None if extra is _NONE else f"{paths[extra]}: not expected"

    def _texts(self, actual: str, one: str, other: str, path: str) -> str | None:
        """Compare texts word by word, if they have the same number of words."""
        words = [_WORDS.findall(text) for text in (actual, one, other)]
        common = [
            first if first == second else None for first, second in zip(*words[1:], strict=False)
        ]
        self.unjudged.append(path)
        if len(words[1]) != len(words[2]) or not any(common):
            return None
        self.judged = True
        if len(words[0]) != len(words[1]) or any(
            word not in (None, found) for word, found in zip(common, words[0], strict=True)
        ):
            return f"{path}: the text differs, also where two golden loads agree"
        return None


def _kind(reply: Reply) -> tuple[int | None, int | None, type]:
    return reply.status, reply.close_code, type(reply.error)


def _text(reply: Reply) -> Any:
    """Return the body as text if possible, else as bytes."""
    try:
        return (reply.content or b"").decode()
    except UnicodeDecodeError:
        return reply.content


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
