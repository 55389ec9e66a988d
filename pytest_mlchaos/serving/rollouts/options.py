"""Check the options of ``mlchaos.rollout``, and prepare the traffic."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from ...core.privacy import data_text
from ...core.rollouts import Watched
from ...core.validation import did_you_mean, format_value, index, is_real, parse_positive_duration
from ...errors import BadArgument

__all__ = ["Options", "Strategy", "Traffic"]

Strategy = Literal["canary", "blue_green", "rolling", "ab", "shadow"]
STEPS: Mapping[str, tuple[float, ...]] = {
    "canary": (0.1, 0.25, 0.5),
    "blue_green": (0.0, 1.0),
    "rolling": (0.25, 0.5, 0.75, 1.0),
    "ab": (0.5,),
    "shadow": (0.0,),
}
"""The shares of the new version, by strategy. Requests are mirrored to it while its share is 0."""
USER_FIELDS = ("user", "user_id", "session", "session_id", "customer", "customer_id", "client")
PLAIN = frozenset({int, float, str, bytes, list, tuple})
"""Types of requests that name no user."""
DEFAULT_RATE = 10.0
MAX_REQUESTS = 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one rollout, checked."""

    strategy: Strategy = "canary"
    steps: tuple[float, ...] = ()
    watched: tuple[Watched, ...] = ("errors",)
    margin: float = 0.05
    false_rollbacks: float = 0.05
    false_promotions: float = 0.05
    latency: float | None = None
    per_check: int = 100
    checks: int = 10
    patience: int = 20
    rate: float = DEFAULT_RATE
    seed: int = 0
    requests: int | None = None

    @property
    def limit(self) -> int:
        """Return the largest number of requests."""
        return MAX_REQUESTS if self.requests is None else self.requests

    @classmethod
    def checked(
        cls, *, labels: bool, metrics: Any, latency: Any, steps: Any, **given: Any
    ) -> Options:
        """Return the options, or raise ``BadArgument`` for the first one that is wrong."""
        strategy = str(given["strategy"]).replace("-", "_").replace("/", "").lower()
        if strategy not in STEPS:
            raise BadArgument(
                f"mlchaos.rollout: strategy must be one of {', '.join(STEPS)}, got "
                f"{format_value(given['strategy'])}{did_you_mean(strategy, STEPS)}"
            )
        for name in ("margin", "false_rollbacks", "false_promotions"):
            if not is_real(given[name]) or not 0 < given[name] < 1:
                raise BadArgument(
                    f"mlchaos.rollout: {name} must be above 0 and below 1, got "
                    f"{format_value(given[name])}"
                )
        for name in ("per_check", "checks", "patience"):
            if not index(given[name]):
                raise BadArgument(
                    f"mlchaos.rollout: {name} must be 1 or more, got {format_value(given[name])}"
                )
        if given["requests"] is not None and not index(given["requests"]):
            raise BadArgument(
                f"mlchaos.rollout: requests must be 1 or more, got "
                f"{format_value(given['requests'])}"
            )
        if not is_real(given["rate"]) or given["rate"] <= 0:
            raise BadArgument(
                f"mlchaos.rollout: rate must be requests a second, above 0, got "
                f"{format_value(given['rate'])}"
            )
        seconds = (
            None
            if latency is None
            else parse_positive_duration(latency, "mlchaos.rollout: latency")
        )
        return cls(
            **{**given, "strategy": strategy},
            latency=seconds,
            steps=_steps(strategy, steps),
            watched=_watched(metrics, labels=labels, latency=seconds is not None),
        )


def _steps(strategy: str, given: Any) -> tuple[float, ...]:
    if given is None:
        return STEPS[strategy]
    if index(given):
        return tuple((place + 1) / given for place in range(given))
    found = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if found and all(is_real(one) for one in found) and max(found) > 1:
        found = tuple(one / 100 for one in found)  # percentages
    if not found or not all(is_real(one) and 0 <= one <= 1 for one in found):
        raise BadArgument(
            f"mlchaos.rollout: steps must be shares of the new version from 0 to 1, such as "
            f"[0.1, 0.5], got {format_value(given)}"
        )
    return found


def _watched(metrics: Any, *, labels: bool, latency: bool) -> tuple[Watched, ...]:
    known = get_args(Watched)
    if metrics is None:
        found: list[Any] = ["errors"]
        found += ["quality"] if labels else []
        found += ["latency"] if latency else []
        return tuple(found)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    aliases = {"error_rate": "errors", "error": "errors", "accuracy": "quality", "p99": "latency"}
    found = [aliases.get(str(name), str(name)) for name in names]
    for name in found:
        if name not in known:
            raise BadArgument(
                f"mlchaos.rollout: metrics must be of {', '.join(known)}, got "
                f"{format_value(name)}{did_you_mean(name, known)}"
            )
        if name == "quality" and not labels:
            raise BadArgument(
                "mlchaos.rollout: metrics with 'quality' need labels=: a list, a function of the "
                "request, or 'golden' for the answers of the old version"
            )
        if name == "latency" and not latency:
            raise BadArgument(
                "mlchaos.rollout: metrics with 'latency' need latency=, the limit such as '200ms'"
            )
    return tuple(dict.fromkeys(found))


class Traffic:
    """The requests of a rollout. A list is sent again and again, as users come again."""

    def __init__(self, given: Any, labels: Any, user: Any) -> None:
        self._function: Callable[[int], Any] | None = None
        self._listed: list[Any] = []
        self._labels = labels
        self._user = user
        if callable(given) and not _is_iterable(given):
            given = self._from_function(given)
        if given is not None:
            if isinstance(given, (str, bytes)) or not _is_iterable(given):
                raise BadArgument(
                    f"mlchaos.rollout: traffic must be a list of requests or a function of their "
                    f"number, got {data_text(given)}"
                )
            self._listed = _take(given)
            if not self._listed:
                raise BadArgument(
                    "mlchaos.rollout: traffic must not be empty. Give one request or more"
                )
        fits = labels is None or callable(labels) or hasattr(labels, "__getitem__")
        if not fits or isinstance(labels, str):
            raise BadArgument(
                f"mlchaos.rollout: labels must be a list, a function of the request, or 'golden', "
                f"got {format_value(labels)}"
            )
        listed = isinstance(labels, Sequence) and not isinstance(labels, str)
        if listed and self._function is None and len(labels) != len(self._listed):
            raise BadArgument(
                f"mlchaos.rollout: labels must have one for each of the {len(self._listed)} "
                f"requests, got {len(labels)}"
            )

    def _from_function(self, function: Callable[..., Any]) -> Any:
        try:
            inspect.signature(function).bind(0)
        except TypeError:
            return function()
        except ValueError:
            pass
        self._function = function
        return None

    def request(self, number: int) -> Any:
        """Return a request by its number."""
        if self._function is not None:
            return self._function(number)
        return self._listed[number % len(self._listed)]

    def user(self, number: int, request: Any) -> Any:
        """Return the user that sends a request. Without users, each request is one."""
        if callable(self._user):
            return self._user(request)
        if type(request) in PLAIN:
            return number
        names = (self._user,) if isinstance(self._user, str) else USER_FIELDS
        if isinstance(request, Mapping):
            return next((request[name] for name in names if name in request), number)
        return next((getattr(request, name) for name in names if hasattr(request, name)), number)

    def label(self, number: int, request: Any) -> Any:
        """Return the right answer to a request."""
        labels = self._labels
        if callable(labels):
            return labels(request)
        if isinstance(labels, Mapping):
            return labels.get(request)
        return labels[number % len(labels)]


def _is_iterable(value: object) -> bool:
    return isinstance(value, Sequence) or hasattr(value, "__iter__")


def _take(given: Any) -> list[Any]:
    """Return the requests of an iterable, at most as many as a rollout may send."""
    found: list[Any] = []
    iterator: Iterator[Any] = iter(given)
    for one in iterator:
        found.append(one)
        if len(found) >= MAX_REQUESTS:
            break
    return found
