"""Define the settings once, for the mark, the ini options and the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import BadArgument
from .validation import did_you_mean, format_value, parse_duration, parse_size, parse_whole

__all__ = ["Setting", "Settings", "parse_settings"]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting, for the ini file, the command line and the mark."""

    text: str
    parse: Callable[[str, Any], Any]
    metavar: str
    implied: str | None = None
    """The value if the command-line option is given without one.

    None if the option needs a value.
    """


_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def _count(name: str, value: object) -> int:
    number = parse_whole(value)
    if not number:
        raise BadArgument(f"{name} must be a whole number of 1 or more, got {format_value(value)}")
    return number


def _limit(name: str, value: object) -> int | None:
    return None if value is None or value == "none" else _count(name, value)


def _jobs(name: str, value: object) -> int | str:
    return "auto" if value == "auto" else _count(name, value)


def _seed(name: str, value: object) -> int | None:
    number = parse_whole(value)
    if value is not None and number is None:
        raise BadArgument(f"{name} must be a whole number of 0 or more, got {format_value(value)}")
    return number


def _duration(name: str, value: object) -> float | None:
    if value is None or value == "none":
        return None
    seconds = parse_duration(value, name)
    if not seconds:
        raise BadArgument(f"{name} must be positive, or None, got {format_value(value)}")
    return seconds


def _size(name: str, value: object) -> int | None:
    return None if value is None or value == "none" else parse_size(value, name)


def _truth(name: str, value: object) -> bool:
    text = value.strip().lower() if isinstance(value, str) else value
    if text is True or text in _TRUE:
        return True
    if text is False or text in _FALSE:
        return False
    raise BadArgument(f"{name} must be true or false, got {format_value(value)}")


def _choice(*choices: str) -> Callable[[str, Any], str]:
    def parse(name: str, value: object) -> str:
        if value not in choices:
            raise BadArgument(
                f"{name} must be {' or '.join(map(repr, choices))}, got {format_value(value)}"
            )
        return str(value)

    return parse


def _setting(
    default: object,
    text: str,
    parse: Callable[[str, Any], Any],
    metavar: str,
    implied: str | None = None,
) -> Any:
    return dataclasses.field(
        default=default, metadata={"setting": Setting(text, parse, metavar, implied)}
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a chaos test.

    Set them for one test with ``@chaos.settings(...)``, and for all tests with the ini options
    ``mlchaos_<name>``. The command line (``--mlchaos-<name>``) overrides both.
    """

    max_trials: int = _setting(50, "schedules to try for one test, before shrinking", _count, "N")
    max_faults: int = _setting(
        3, "the largest number of faults that strike in one schedule", _count, "N"
    )
    seed: int | None = _setting(
        None, "seed of the search and of everything random in a fault", _seed, "N"
    )
    clock: str = _setting(
        "virtual",
        "clock of the code under test: virtual (waiting takes no time) or real",
        _choice("virtual", "real"),
        "CLOCK",
    )
    isolation: str = _setting(
        "in-process",
        "where mlchaos.run runs its subject: in-process, or process (a fresh one for each attempt)",
        _choice("in-process", "process"),
        "WHERE",
    )
    timeout: float | None = _setting(
        60.0, "the time limit for one trial, or none", _duration, "TIME"
    )
    budget: float | None = _setting(
        None,
        "the time limit for the search or exploration of one test, or none. On the command line: for "
        "all chaos tests of the session",
        _duration,
        "TIME",
    )
    max_states: int | None = _setting(
        None, "the largest number of crash states to try for one exploration, or none", _limit, "N"
    )
    jobs: int | str = _setting(
        "auto", "crash states to resume at a time: a number, or auto", _jobs, "N"
    )
    memory: int | None = _setting(
        None,
        "memory for one run in a fresh process, with all that it starts, or none",
        _size,
        "SIZE",
    )
    cpu: float | None = _setting(
        None,
        "processor time for one run in a fresh process, with all that it starts, or none",
        _duration,
        "TIME",
    )
    disk: int | None = _setting(
        None, "size of the work directory of one run in a fresh process, or none", _size, "SIZE"
    )
    require_all: bool = _setting(
        False,
        "true: an exploration that did not try all crash states is inconclusive",
        _truth,
        "BOOL",
        "true",
    )
    allow_quiet: bool = _setting(
        False,
        "true: a declared fault need not strike. false: the test fails if one does not",
        _truth,
        "BOOL",
        "true",
    )

    @classmethod
    def table(cls) -> dict[str, Setting]:
        """Return each setting's help and parser, by name."""
        return {field.name: field.metadata["setting"] for field in dataclasses.fields(cls)}

    def changed(self) -> str:
        """Return the settings that differ from their defaults, for the report's header."""
        return ", ".join(
            f"{f.name}={getattr(self, f.name)}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        )


def parse_settings(
    values: Mapping[str, Any], base: Settings, source: Callable[[str], str] = lambda name: name
) -> Settings:
    """Return ``base`` with ``values`` on top, after a check of each value.

    Args:
        values: The values by the name of their setting.
        base: The settings to start with.
        source: A function that returns a setting's name as the user wrote it, for messages.

    Raises:
        BadArgument: A name is unknown, or a value does not fit.
    """
    table = Settings.table()
    parsed = {}
    for name, value in values.items():
        if name not in table:
            raise BadArgument(
                f"unknown setting {source(name)!r}{did_you_mean(name, table)}. The settings are "
                f"{', '.join(table)}"
            )
        parsed[name] = table[name].parse(source(name), value)
    return dataclasses.replace(base, **parsed)
