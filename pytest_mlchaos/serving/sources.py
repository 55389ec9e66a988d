"""Provide requests: from Hypothesis strategies, OpenAPI schemas and recorded traffic."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.privacy import data_text
from ..core.validation import PATH, Rule, check_arguments, format_value, is_real
from ..errors import BadArgument, MissingExtra

__all__ = ["Recorded", "draw_examples", "is_strategy", "openapi", "replay"]

DRAWN_AT_MOST = 500
"""The largest number of different requests that are drawn from a strategy. Then they repeat."""
TIMES = ("time", "timestamp", "ts", "at")
"""The keys of JSON lines under which a time is looked for, in this order."""
KEYWORDS = (
    *("method", "url", "headers", "params", "cookies"),
    *("json", "data", "files", "content", "extensions"),
)
"""The keywords of a request, as httpx has them."""
_ADDED = ("user-agent", "accept", "accept-encoding", "connection", "x-schemathesis-testcaseid")
"""Headers that schemathesis adds for its own client."""
_ACCESS_LOG = re.compile(
    r'\S+ \S+ .*?\[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}|-) \S+.*'
)
"""A line in common or combined log format."""
_REQUEST_LINE = re.compile(r"(?P<method>[A-Z]+) (?P<url>\S+)(?: HTTP/[\d.]+)?")


# -- strategies ------------------------------------------------------------------------------------


def is_strategy(value: object) -> bool:
    """Return True for a strategy of Hypothesis, without importing it."""
    return hasattr(value, "example") and hasattr(value, "validate") and hasattr(value, "flatmap")


def draw_examples(strategy: Any, number: int, seed: int) -> list[Any]:
    """Return up to ``number`` values of a strategy. Equal seeds give equal values.

    There are fewer if the strategy has fewer different values.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis.errors import HypothesisException

    drawn: list[Any] = []

    @seeded(seed)
    @settings(
        max_examples=min(number, DRAWN_AT_MOST),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        drawn.append(value)

    try:
        collect()
    except HypothesisException as error:
        raise BadArgument(
            f"drive: the strategy of requests gave no value ({type(error).__name__}: {error})"
        ) from error
    return drawn[:number]


def openapi(app: Any) -> Any:
    """Return a Hypothesis strategy of requests that fit an app's OpenAPI schema.

    Give it to ``drive`` as its requests: ``service.drive(mlchaos.openapi(app), number=200)``. Filter
    it like any strategy. A request is a dict of httpx's request keywords. It needs schemathesis:
    ``python -m pip install "pytest-mlchaos[openapi]"``.

    Args:
        app: An app with a method ``openapi`` (FastAPI), the schema as a dict, or the path of a file
            with it (JSON).

    Raises:
        BadArgument: The schema is missing, or has no path.
    """
    schema = _schema_of(app)
    if not isinstance(schema, dict) or not schema.get("paths"):
        raise BadArgument("mlchaos.openapi: the schema has no path, so no request fits it")
    try:
        from schemathesis import openapi as loaders
    except ImportError:
        raise MissingExtra("mlchaos.openapi", "schemathesis", "openapi") from None
    try:
        strategy = loaders.from_dict(schema).as_strategy()
    except Exception as error:  # a schema may be wrong in any way
        raise BadArgument(
            f"mlchaos.openapi: the schema cannot be read: {type(error).__name__}: {error}"
        ) from error
    return strategy.map(_as_request)


def _schema_of(app: Any) -> Any:
    if isinstance(app, Mapping):
        return dict(app)
    if isinstance(app, (str, os.PathLike)):
        try:
            return json.loads(Path(app).read_text())
        except (OSError, ValueError) as error:
            raise BadArgument(
                f"mlchaos.openapi: the schema must be a file of JSON, got "
                f"{format_value(os.fspath(app))}: {type(error).__name__}"
            ) from None
    if callable(getattr(app, "openapi", None)):
        return app.openapi()
    raise BadArgument(
        f"mlchaos.openapi: app must have a method openapi(), as FastAPI's do, or be a schema (a dict "
        f"or the path of a JSON file), got {data_text(app)}"
    )


def _as_request(case: Any) -> dict[str, Any]:
    """Return a case of schemathesis as httpx's keywords."""
    keywords = dict(case.as_transport_kwargs(base_url="http://testserver"))
    keywords["headers"] = {
        name: value
        for name, value in dict(keywords.get("headers") or {}).items()
        if name.lower() not in _ADDED
    }
    data = keywords.get("data")
    if isinstance(data, (bytes, str)):
        keywords["content"] = keywords.pop("data")
    return {name: keywords[name] for name in KEYWORDS if keywords.get(name) is not None}


# -- recorded traffic ------------------------------------------------------------------------------


class Recorded(Sequence[tuple[float, Any]]):
    """Recorded requests, each with its time in seconds from the first one.

    Attributes:
        skipped: The number of lines that hold no HTTP request, such as port scans.
    """

    def __init__(self, entries: Sequence[tuple[float, Any]], skipped: int = 0) -> None:
        self._entries = tuple(entries)
        self.skipped = skipped

    @property
    def times(self) -> tuple[float, ...]:
        """Return the times in seconds from the first request."""
        return tuple(time for time, _ in self._entries)

    @property
    def requests(self) -> tuple[Any, ...]:
        """Return the requests, in the order of their times."""
        return tuple(request for _, request in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, place: Any) -> Any:
        return self._entries[place]

    def __repr__(self) -> str:
        return f"<{len(self)} recorded requests over {self._entries[-1][0]:.0f} s>"


@check_arguments(
    "mlchaos.replay",
    path=PATH,
    speed=Rule("a number above 0", lambda value: is_real(value) and value > 0),
)
def replay(path: str | os.PathLike[str], *, speed: float = 1.0) -> Recorded:
    """Read recorded traffic, for ``service.drive(mlchaos.replay("access.log"))``.

    The requests arrive at their recorded times. With ``rate=`` or another ``pattern=`` only the
    requests are used.

    Args:
        path: An access log in common or combined format (nginx, Apache, gunicorn), or JSON lines.
            Each JSON line is an object with a time under ``"time"``, ``"timestamp"``, ``"ts"`` or
            ``"at"`` (seconds, or ISO 8601), and the request: under ``"request"``, or as httpx's
            keywords (``"path"`` is read as ``"url"``). Further keys, such as a status, are ignored.
            Without a URL, the remaining keys are the request.
        speed: 2 for arrivals in half the recorded time.

    Raises:
        BadArgument: A line cannot be read, and the message has its number. Or no line has a request.

    Fidelity: an access log has no bodies and whole seconds. Requests of the same second are spread
    over it evenly, in the order of the lines.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadArgument(
            f"mlchaos.replay: path must be a readable file, got {format_value(os.fspath(path))}: "
            f"{error.strerror}"
        ) from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise BadArgument(f"mlchaos.replay: {Path(path).name} is empty")
    read = _json_line if lines[0][1].lstrip().startswith("{") else _log_line
    entries: list[tuple[float, Any]] = []
    for number, line in lines:
        try:
            entry = read(line)
        except ValueError as error:
            raise BadArgument(
                f"mlchaos.replay: line {number} of {Path(path).name} cannot be read: {error}"
            ) from None
        if entry is not None:
            entries.append(entry)
    if not entries:
        raise BadArgument(f"mlchaos.replay: {Path(path).name} holds no HTTP request")
    entries.sort(key=lambda entry: entry[0])
    if read is _log_line:
        entries = list(_spread(entries))
    first = entries[0][0]
    timed = [((time - first) / speed, request) for time, request in entries]
    return Recorded(timed, len(lines) - len(entries))


def _log_line(line: str) -> tuple[float, Any] | None:
    match = _ACCESS_LOG.fullmatch(line.strip())
    if match is None:
        raise ValueError("it is neither in common or combined log format nor an object of JSON")
    asked = _REQUEST_LINE.fullmatch(match["request"])
    try:
        time = datetime.datetime.strptime(match["time"], "%d/%b/%Y:%H:%M:%S %z").timestamp()
    except ValueError:
        raise ValueError("its time must be as [10/Oct/2000:13:55:36 -0700]") from None
    if asked is None or not asked["url"].startswith(("/", "http:", "https:")):
        return None
    return time, (asked["method"], asked["url"])


def _json_line(line: str) -> tuple[float, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("it is not an object of JSON")
    key = next((name for name in TIMES if name in found), None)
    if key is None:
        raise ValueError(f"it has no time under {', '.join(map(repr, TIMES))}")
    time = _seconds(found.pop(key))
    if "request" in found:
        request = found["request"]
        return time, tuple(request) if isinstance(request, list) else request
    if not found:
        raise ValueError("it has no request")
    url = found.get("url", found.get("path"))
    if url is None:
        return time, found
    return time, {name: value for name, value in {**found, "url": url}.items() if name in KEYWORDS}


def _seconds(value: Any) -> float:
    """Return a time in seconds, from a number or a text in ISO 8601."""
    if is_real(value) and value >= 0:
        return float(value)
    try:
        return datetime.datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError):
        raise ValueError(
            "its time must be a number of seconds, 0 or more, or a text in ISO 8601"
        ) from None


def _spread(entries: Sequence[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """Spread requests of the same whole second over it."""
    for time, group in itertools.groupby(entries, key=lambda entry: entry[0]):
        together = list(group)
        yield from (
            (time + place / len(together), request) for place, (_, request) in enumerate(together)
        )
