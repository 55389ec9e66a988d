"""Read and move dates and times of plain Python, and those in texts in ISO format."""

from __future__ import annotations

import datetime
import re
from typing import Any

from .base import UnsupportedColumn, ahead

__all__ = ["kind_of_times", "microseconds", "moved", "on_clock_of"]

_EPOCH = datetime.datetime(1970, 1, 1)
_TICK = datetime.timedelta(microseconds=1)
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?")


def kind_of_times(values: list[Any]) -> str:
    """Return "time" if all values are dates or times, or texts of them, else an empty text."""
    if all(isinstance(value, datetime.date) for value in values):
        return "time"
    texts = all(isinstance(value, str) for value in values)
    return "time" if texts and all(_is_iso(value) for value in values) else ""


def _is_iso(text: str) -> bool:
    if not _ISO.fullmatch(text):
        return False
    try:
        return _written(text, datetime.datetime.fromisoformat(text)) == text
    except ValueError:
        return False


def _written(like: str, moment: datetime.datetime) -> str:
    """Return a moment in the format of a text: with its separator, digits and form of the zone."""
    if len(like) == 10:
        return moment.date().isoformat()
    clock = re.split("[Z+]|-", like[11:])[0]
    digits = len(clock.partition(".")[2])
    spec = "seconds" if clock.count(":") > 1 else "minutes"
    text = moment.replace(tzinfo=None).isoformat(sep=like[10], timespec=spec)
    text += f".{moment.microsecond:06d}"[: digits + 1] if digits else ""
    if moment.tzinfo is None:
        return text
    zone = moment.strftime("%z") if ":" not in like[-6:-2] else moment.isoformat()[-6:]
    return text + ("Z" if like.endswith("Z") and zone.strip("+0:") == "" else zone)


def _moment(value: Any) -> datetime.datetime:
    if isinstance(value, str):
        return datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.datetime):
        return value
    return datetime.datetime(value.year, value.month, value.day)


def microseconds(value: Any) -> int:
    """Return the microseconds since 1970. Those without a zone count on their own clock."""
    moment = _moment(value)
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return (moment - _EPOCH) // _TICK


def moved(value: Any, ticks: int) -> Any:
    """Return a time that is later by a number of microseconds, in its own type or format."""
    try:
        moment = _moment(value) + datetime.timedelta(microseconds=ticks)
    except OverflowError:
        raise UnsupportedColumn("would leave the years 1 to 9999") from None
    if isinstance(value, str):
        new: Any = _written(value, moment)
    else:
        new = moment if isinstance(value, datetime.datetime) else moment.date()
    if ticks and new == value:
        raise UnsupportedColumn("is too coarse for this duration")
    return new


def on_clock_of(value: Any, seconds: int, dtype: str) -> Any:
    """Return a time on the clock of a zone that is ahead by a number of seconds."""
    moment = _moment(value)
    if moment.tzinfo is None:
        return moved(value, seconds * 1_000_000)
    there = moment.astimezone(ahead(moment.utcoffset(), seconds))
    return _written(value, there) if isinstance(value, str) else there
