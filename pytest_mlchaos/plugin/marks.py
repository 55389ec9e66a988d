"""What a test declares: its faults and settings, from marks, ini options and the command line."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import pytest

from .. import faults
from ..core.faults import Fault, create, find
from ..core.schedule import Schedule
from ..core.settings import Settings, parse_settings
from ..core.validation import format_value
from ..errors import BadArgument, MissingExtra
from .pytest_internals import source_marks

__all__ = ["DeclaredFault", "declared_by", "settings_of"]


@dataclasses.dataclass(frozen=True)
class DeclaredFault:
    """One fault as the user declared it; ``given`` are the keywords that were written."""

    fault: Fault
    given: frozenset[str]


def declared_by(item: pytest.Item) -> list[DeclaredFault]:
    """The faults that an item's marks declare; the first wrong one raises ``BadArgument``."""
    faults.load()
    return [_from_mark(mark, origin) for origin, mark in enumerate(source_marks(item, "mlchaos"))]


def _from_mark(mark: pytest.Mark, origin: int) -> DeclaredFault:
    keywords = dict(mark.kwargs)
    name = keywords.pop("fault", None)
    if mark.args:
        raise BadArgument(f"faults take keywords only, as in @chaos.gpu_oom(at=7), but got {format_value(mark.args[0])}")
    if not isinstance(name, str):
        raise BadArgument("expected pytest.mark.mlchaos(fault='gpu_oom', ...); write @chaos.gpu_oom(...) instead")
    needs = find(name).needs
    if needs is not None and importlib.util.find_spec(needs[0]) is None:
        raise MissingExtra(f"chaos.{name}", *needs)
    return DeclaredFault(dataclasses.replace(create(name, **keywords), _origin=origin), frozenset(keywords))


def settings_of(config: pytest.Config, item: pytest.Item | None = None) -> Settings:
    """The settings: defaults, then ini options, then marks (the closest wins), then the command line."""
    table = Settings.table()
    ini = {name: value for name in table if (value := config.getini(f"mlchaos_{name}")) not in (None, "")}
    settings = parse_settings(ini, Settings(), lambda name: f"mlchaos_{name}")
    for mark in source_marks(item, "mlchaos_settings") if item is not None else ():
        if mark.args:
            raise BadArgument(f"chaos.settings takes keywords only but got {format_value(mark.args[0])}")
        settings = parse_settings(mark.kwargs, settings, lambda name: f"chaos.settings: {name}")
    options: dict[str, Any] = {name: value for name in table if (value := config.getoption(f"mlchaos_{name}")) is not None}
    return parse_settings(options, settings, lambda name: f"--mlchaos-{name.replace('_', '-')}")


def replayed_schedule(config: pytest.Config) -> Schedule | None:
    """The schedule of ``--mlchaos-replay``, if it was given."""
    text = config.getoption("mlchaos_replay")
    if text is None:
        return None
    faults.load()
    return Schedule.parse(text)
