"""Writes the generated pages, ``faults.md`` and ``reference.md``, from docstrings: ``python docs/make.py``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest_mlchaos
from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.settings import Settings
from pytest_mlchaos.core.sites import SITES
from pytest_mlchaos.reports.catalogue import markdown

HERE = Path(__file__).parent
GROUPS = {
    "The fixture": ("Mlchaos",),
    "Crash states": ("CrashReport", "CrashOutcome", "CrashState", "Divergence"),
    "Runs": ("Run", "World", "WorldRun", "RankRun", "Service", "Load", "Reply", "PipelineRun"),
    "Faults and sites": ("chaos", "Fault", "Visit", "Schedule", "visit", "batches", "site", "Controller", "Patches"),
}
FOR_SITES = {"Controller": ("visit", "begin"), "Patches": ("on_undo", "set", "wrap", "replace_everywhere")}
"""The methods that a site calls. The other methods of these classes are internal."""


def pages() -> dict[str, str]:
    """Each generated page's name and text."""
    faults.load()
    sites.load()
    return {"faults.md": markdown(), "reference.md": reference()}


def reference() -> str:
    """Everything public, from docstrings."""
    public = [name for name in pytest_mlchaos.__all__ if not name.startswith("__")]
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "Oracles": tuple(name for name in sorted(public) if name.startswith("assert_"))}
    groups["Errors"] = tuple(name for name in public if name not in grouped and not name.startswith("assert_"))
    lines = ["# Reference", "", "Generated from the docstrings by `python docs/make.py`. The faults have [a page of their own](faults.md)."]
    for title, names in groups.items():
        lines += ["", f"## {title}"]
        for name in names:
            if name in public:
                lines += _entry(name, getattr(pytest_mlchaos, name))
    return "\n".join([*lines, *_sites(), *_settings()]) + "\n"


def _entry(name: str, value: Any) -> Iterator[str]:
    signature = "" if inspect.isclass(value) or not callable(value) else _signature(value)
    yield from ("", f"### `{name}{signature}`", "", _text(value))
    if inspect.isclass(value) and not issubclass(value, BaseException):
        for member, held in vars(value).items():
            function = getattr(held, "fget", None) or getattr(held, "func", held)
            if not member.startswith("_") and inspect.isfunction(function) and member in FOR_SITES.get(name, (member,)):
                call = _signature(function) if function is held else ""
                yield from ("", f"#### `.{member}{call}`", "", _text(function))


def _signature(function: Any) -> str:
    """Names and defaults; the types stand in the code, and in an editor."""
    signature = inspect.signature(function)
    shown = [parameter.replace(annotation=parameter.empty) for name, parameter in signature.parameters.items() if name != "self"]
    text = str(signature.replace(parameters=shown, return_annotation=signature.empty))
    text = re.sub(r"<function (\w+) at \w+>", r"\1", text)
    return re.sub(r"<object object at \w+>", "...", text)  # a mark for what was not given


def _text(value: Any) -> str:
    text = inspect.cleandoc(value.__doc__ or "")
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", text)
    text = re.sub(r"::\n\n((?:    .*\n?|\n)+)", lambda found: f":\n\n```text\n{inspect.cleandoc(found[1])}\n```\n", text)
    return re.sub(r"(?<!`)``(?!`)", "`", text)


def _sites() -> Iterator[str]:
    yield from ("", "## Sites", "", "| site | a visit is |", "|---|---|")
    yield from (f"| `{site.name}` | {site.doc.replace('``', '`')} |" for site in sorted(SITES.values(), key=lambda site: site.name))


def _settings() -> Iterator[str]:
    yield from ("", "## Settings", "", "`@chaos.settings(name=…)`, `--mlchaos-name`, ini option `mlchaos_name`.", "")
    yield from ("| name | default | meaning |", "|---|---|---|")
    for name, setting in Settings.table().items():
        yield f"| `{name}` | `{getattr(Settings(), name)!r}` | {setting.text} |"


if __name__ == "__main__":
    for page, text in pages().items():
        (HERE / page).write_text(text, encoding="utf-8")
