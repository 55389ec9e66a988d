"""Turn the arguments of ``drive`` into a load: which request arrives when, and from what class.

All of it is decided before the load begins, by seeded random numbers. So a slow reply never moves an
arrival, and the golden load has the same requests.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..core.privacy import data_text
from ..core.sites import derive_seed
from ..core.validation import ITERABLE, format_value, index, is_real
from ..errors import BadArgument
from .arrivals import Arrivals
from .distributions import Distribution
from .sources import DRAWN_AT_MOST, Recorded, draw_examples, is_strategy

__all__ = ["Supply", "Traffic", "make_traffic"]

MAX_REQUESTS = 5_000_000
"""The largest number of requests of one load."""
STRATEGY_REQUESTS = 100
"""The number of requests from a strategy, if neither ``number`` nor ``duration`` is given."""
SHARES_SUM_TOLERANCE = 1e-6
_IMMUTABLE = (str, bytes, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True, slots=True)
class Traffic:
    """A load before it is sent.

    Attributes:
        requests: The requests in order, as they were given. A closed loop with a duration
            has any number.
        arrivals: The seconds from the start of the load at which they arrive. None in a closed loop.
        until: The seconds after which a closed loop sends no more, or None.
        thinks: A function that yields how long each user waits after a reply, or None.
    """

    requests: Supply
    arrivals: Sequence[float] | None
    until: float | None = None
    thinks: Callable[[], Iterator[float]] | None = None


class Supply(Sequence[Any]):
    """The requests of a load, which are drawn when they are asked for.

    ``number`` is None for any number.
    """

    def __init__(self, draw: Iterator[tuple[str, Any]], number: int | None) -> None:
        self._draw = draw
        self._drawn: list[tuple[str, Any]] = []
        self.number = number

    def _at(self, place: int) -> tuple[str, Any]:
        if self.number is not None and place >= self.number:
            raise IndexError(place)
        while len(self._drawn) <= place:
            try:
                self._drawn.append(next(self._draw))
            except StopIteration:
                self.number = len(self._drawn)
                raise IndexError(place) from None
        return self._drawn[place]

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        return self._at(place)[1]

    def __len__(self) -> int:
        return len(self._drawn) if self.number is None else self.number

    def group(self, place: int) -> str:
        """Return the class of a request."""
        return self._at(place)[0]


def make_traffic(
    requests: Any,
    *,
    rate: float | None,
    number: int | None,
    duration: float | None,
    pattern: str | None,
    peak: float | None,
    period: float | None,
    classes: Mapping[str, Any] | None,
    returning: float,
    think_time: Distribution | None,
    seed: int,
) -> Traffic:
    """Return the load that the arguments of ``drive`` describe.

    Raises:
        BadArgument: They contradict each other, or give no request.
    """
    if number is None and duration is None and isinstance(requests, Iterator):
        requests = list(requests)
    recorded = requests if isinstance(requests, Recorded) else None
    if recorded is not None and rate is None and pattern in (None, "replay"):
        _refuse(
            "the arrivals of recorded requests", peak=peak, period=period, think_time=think_time
        )
        arrivals: list[float] | None = _cut(recorded.times, number, duration)
    else:
        arrivals = None
    listed = recorded.requests if recorded is not None else requests
    source = _Source(listed, seed) if classes is None else _Classes(classes, listed, seed)
    wanted = _number(source.length, number, duration)
    if arrivals is not None:
        wanted = len(arrivals)
    elif pattern == "replay":
        raise BadArgument(
            "drive: pattern='replay' needs recorded requests and their own times. Give "
            "mlchaos.replay(path), without rate="
        )
    elif rate is not None:
        _refuse("an open loop (rate=)", think_time=think_time)
        spread = Arrivals(pattern or "constant", rate, peak, period)
        arrivals = _arrivals(spread, wanted, duration, seed)
        wanted = len(arrivals)
    else:
        _refuse_open(pattern, peak, period)
    drawn = source.requests(wanted)
    if returning:
        drawn = _with_returning(drawn, returning, random.Random(derive_seed("returning", seed)))
    supply = Supply(drawn, wanted)
    if wanted != 0:
        _first(supply)
    thinks = None
    if think_time is not None:
        thinks = lambda: _draws(think_time, derive_seed("think", seed))  # noqa: E731
    until = duration if arrivals is None else None
    return Traffic(supply, arrivals, until, thinks)


def _first(supply: Supply) -> None:
    """Raise an error if not a single request comes."""
    try:
        supply[0]
    except IndexError:
        raise BadArgument("drive: requests must not be empty. Give one or more") from None


def _refuse(what: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise BadArgument(f"drive: {name}= does not apply to {what}. Leave it out")


def _refuse_open(pattern: str | None, peak: float | None, period: float | None) -> None:
    for name, value in (("pattern", pattern), ("peak", peak), ("period", period)):
        if value is not None:
            raise BadArgument(f"drive: {name}= needs rate=, the mean number of requests a second")


def _cut(times: Sequence[float], number: int | None, duration: float | None) -> list[float]:
    kept = list(itertools.islice(times, number))
    return kept if duration is None else [time for time in kept if time < duration]


def _number(length: int | None, number: int | None, duration: float | None) -> int | None:
    """Return the number of requests, or None if only the duration limits it."""
    if number is None and duration is None:
        number = length
        if number is None:
            raise BadArgument(
                "drive: the number of requests is not known. Give number=1000, or duration='60s'"
            )
    if number is not None and number > MAX_REQUESTS:
        raise BadArgument(f"drive: number must be at most {MAX_REQUESTS}, got {number}")
    return number


def _arrivals(
    spread: Arrivals, number: int | None, duration: float | None, seed: int
) -> list[float]:
    highest = spread.rate * duration if duration is not None else 0.0
    if number is None and highest > MAX_REQUESTS:
        raise BadArgument(
            f"drive: rate={spread.rate:g} for {duration:g} s is {highest:.3g} requests, and one load "
            f"has at most {MAX_REQUESTS:.0e}. Lower the rate or the duration"
        )
    length = duration if duration is not None else (number or 1) / spread.rate
    times = spread.times(random.Random(derive_seed("arrivals", seed)), length)
    listed = itertools.islice(times, number)
    if duration is None:
        return list(listed)
    found = list(itertools.takewhile(lambda time: time < duration, listed))
    if not found:
        raise BadArgument(
            f"drive: no request arrives within {duration:g} s at rate={spread.rate:g}. Give a longer "
            f"duration, or a higher rate"
        )
    return found


def _draws(distribution: Distribution, seed: int) -> Iterator[float]:
    rng = random.Random(seed)
    while True:
        yield distribution.draw(rng)


# -- where requests come from ------------------------------------------------------------------------


class _Source:
    """The requests of one list, iterable or strategy.

    ``length`` is their number, or None for an iterator.
    """

    def __init__(self, given: Any, seed: int) -> None:
        self._given = given
        self._seed = seed
        self.length: int | None = None
        if is_strategy(given):
            self.length = STRATEGY_REQUESTS
        elif ITERABLE.holds(given):
            if not isinstance(given, Iterator):
                self._given = list(given)
                self.length = len(self._given)
                if not self.length:
                    raise BadArgument("drive: requests must not be empty. Give one or more")
        else:
            raise BadArgument(
                f"drive: requests must be a list of requests, got {data_text(given)}. It may also be a "
                f"strategy of Hypothesis, or mlchaos.replay(path)"
            )

    def requests(self, wanted: int | None) -> Iterator[tuple[str, Any]]:
        """Yield requests without end: from the start again, or drawn again."""
        if is_strategy(self._given):
            number = min(wanted or DRAWN_AT_MOST, DRAWN_AT_MOST)
            yield from (("", value) for value in _drawn(self._given, number, self._seed))
        elif isinstance(self._given, Iterator):
            yield from (("", value) for value in self._given)
        else:
            yield from (("", value) for value in self._given)
            while True:
                yield from (("", _fresh(value)) for value in self._given)


def _drawn(strategy: Any, number: int, seed: int) -> Iterator[Any]:
    """Yield values of a strategy. After this number, they come again in random order."""
    values = draw_examples(strategy, number, seed)
    yield from values
    rng = random.Random(derive_seed("drawn", seed))
    while True:
        yield _fresh(rng.choice(values))


def _fresh(value: Any) -> Any:
    """Return a copy of a request that is sent again, because the app may have changed it."""
    if isinstance(value, _IMMUTABLE):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # it cannot be copied
        return value


class _Classes:
    """Classes of requests with their shares."""

    def __init__(self, classes: Mapping[str, Any], requests: Any, seed: int) -> None:
        self._seed = seed
        self._base: _Source | None = None
        self.length = index(requests) if not isinstance(requests, bool) else None
        if self.length is None and requests is not None:
            self._base = _Source(requests, seed)
            self.length = self._base.length
        if not isinstance(classes, Mapping) or not classes:
            raise BadArgument(
                f"drive: classes must be a dict such as {{'small': (0.9, request)}}, got "
                f"{data_text(classes)}"
            )
        self._shares: list[float] = []
        self._makers: list[tuple[str, Any]] = []
        for name, given in classes.items():
            self._add(str(name), given)
        total = sum(self._shares)
        if abs(total - 1) > SHARES_SUM_TOLERANCE:
            shares = " + ".join(f"{share:g}" for share in self._shares)
            raise BadArgument(
                f"drive: the shares of classes must sum to 1, got {shares} = {total:g}"
            )

    def _add(self, name: str, given: Any) -> None:
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise BadArgument(
                f"drive: classes[{name!r}] must be (share, request) or (share, [requests]), got "
                f"{data_text(given)}"
            )
        share, source = given
        if not is_real(share) or not 0 <= share <= 1:
            raise BadArgument(
                f"drive: the share of classes[{name!r}] must be from 0 to 1, got "
                f"{format_value(share)}"
            )
        makes = callable(source) and not is_strategy(source)
        if self._base is not None and not makes:
            raise BadArgument(
                f"drive: classes[{name!r}] has requests of its own, so requests= must be their "
                f"number. Or give a function in the class, which makes its request of the given one"
            )
        if self._base is None and makes:
            raise BadArgument(
                f"drive: the function of classes[{name!r}] needs requests= to make its requests of"
            )
        self._shares.append(float(share))
        if makes:
            self._makers.append((name, source))
        else:
            several = is_strategy(source) or isinstance(source, (list, Recorded))
            if isinstance(source, Recorded):
                source = source.requests
            own = _Source(source if several else [source], derive_seed(name, self._seed))
            self._makers.append((name, own))

    def requests(self, wanted: int | None) -> Iterator[tuple[str, Any]]:
        """Yield requests without end, each of a class that is drawn by the shares."""
        rng = random.Random(derive_seed("classes", self._seed))
        base = self._base.requests(wanted) if self._base is not None else None
        own = [maker.requests(wanted) if base is None else maker for _, maker in self._makers]
        bounds = list(itertools.accumulate(self._shares))
        last = max(place for place, share in enumerate(self._shares) if share)
        while True:
            chance = rng.random()
            place = next((at for at, bound in enumerate(bounds) if chance < bound), last)
            name = self._makers[place][0]
            if base is None:
                yield name, next(own[place])[1]
            else:
                try:
                    given = next(base)[1]
                except StopIteration:
                    return
                yield name, own[place](given)


def _with_returning(
    drawn: Iterable[tuple[str, Any]], share: float, rng: random.Random
) -> Iterator[tuple[str, Any]]:
    """Replace this share of requests by an earlier one of the same class.

    Each earlier one is as likely, so some come often and most come once, as users do.
    """
    earlier: dict[str, list[Any]] = {}
    for name, request in drawn:
        known = earlier.setdefault(name, [])
        again = bool(known) and rng.random() < share
        sent = _fresh(known[rng.randrange(len(known))]) if again else request
        known.append(sent)
        yield name, sent
