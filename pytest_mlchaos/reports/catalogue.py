"""The catalogue of faults, from their docstrings: ``pytest --mlchaos-faults``, and a page of the documentation."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ..core.faults import FAULTS, Fault

__all__ = ["catalogue", "describe", "layers", "markdown", "sections"]

_COMMON = {field.name for field in dataclasses.fields(Fault)}
_SECTION = re.compile(r"^(Imitates|Fidelity|Source|Example):\s*", re.MULTILINE)
_PROSE = ("Imitates", "Fidelity", "Source")
WIDTH = 96
OTHERS = "Yours"


def sections(fault: type[Fault]) -> dict[str, str]:
    """A fault's docstring in parts: ``summary``, ``details``, ``Imitates``, ``Fidelity``, ``Source``, ``Example`` (a decorator)."""
    doc = inspect.cleandoc(fault.__doc__ or "")
    parts = _SECTION.split(doc)
    summary, _, details = parts[0].partition("\n\n")
    named = {name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    if "Example" in named:
        named["Example"] = named["Example"].strip("`")
    return {"summary": " ".join(summary.split()), "details": " ".join(details.split()), **named}


def parameters(fault: type[Fault]) -> list[str]:
    """``phase='backward'``, … : what the fault takes beside the common keywords."""
    found = []
    for field in dataclasses.fields(fault):
        if field.name not in _COMMON:
            found.append(field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default!r}")
    return found


def layers() -> dict[str, list[type[Fault]]]:
    """The registered faults by layer, as the ``LAYER`` of their file names it; those of files that name none come last."""
    found: dict[str, list[type[Fault]]] = {}
    for fault in sorted(FAULTS.values(), key=lambda fault: fault.name):
        found.setdefault(getattr(sys.modules.get(fault.__module__), "LAYER", OTHERS), []).append(fault)
    return dict(sorted(found.items(), key=lambda item: (item[0] == OTHERS, item[0])))


def _site(fault: type[Fault]) -> str:
    site = getattr(fault, "site", "")
    return site if isinstance(site, str) else "as its parameters say"


def _scales(fault: type[Fault]) -> Mapping[str, tuple[Any, ...]]:
    """What the severities 1 to 5 stand for."""
    scales: Mapping[str, tuple[Any, ...]] = getattr(fault, "scales", {})
    return scales


def describe(fault: type[Fault]) -> str:
    """One fault's entry."""
    parts = sections(fault)
    lines = [f"chaos.{fault.name}({', '.join(parameters(fault))})  -- {_site(fault)}"]
    lines += textwrap.wrap(parts["summary"], WIDTH, initial_indent="    ", subsequent_indent="    ")
    for name in ("Imitates", "Fidelity"):
        if name in parts:
            lines += textwrap.wrap(f"{name}: {parts[name]}", WIDTH, initial_indent="    ", subsequent_indent="      ")
    for name, values in _scales(fault).items():
        lines.append(f"    severity 1 to 5: {name} {', '.join(map(str, values))}")
    if "Example" in parts:
        lines.append(f"    {parts['Example']}")
    return "\n".join(lines)


def catalogue() -> str:
    """Every registered fault."""
    head = "faults (chaos.<name>; each also takes at=, p=, times=, where=):"
    return "\n\n".join([head, *("\n\n".join([f"{layer}:", *map(describe, faults)]) for layer, faults in layers().items())])


def markdown() -> str:
    """The catalogue as a page of the documentation."""
    lines = [
        "# Faults",
        "",
        "Generated from the docstrings by `python docs/make.py`; `pytest --mlchaos-faults` prints it, your own faults included. Each fault",
        "also takes `at`, `p`, `times` and `where`. Where a fault has a severity, 1 is hardly to be noticed and 5 hopeless.",
    ]
    for layer, faults in layers().items():
        lines += ["", f"## {layer}", "", *(f"- [`{fault.name}`](#chaos{fault.name}): {sections(fault)['summary']}" for fault in faults)]
        for fault in faults:
            lines += _entry(fault)
    return re.sub(r"(?<!`)``(?!`)", "`", "\n".join(lines)) + "\n"


def _entry(fault: type[Fault]) -> Iterator[str]:
    parts = sections(fault)
    yield from ("", f"### `chaos.{fault.name}`", "", parts["summary"])
    if "Example" in parts:
        yield from ("", "```text", parts["Example"], "```")
    if parts["details"]:
        yield from ("", parts["details"])
    yield from ("", f"*Parameters*: {', '.join(f'`{name}`' for name in parameters(fault)) or 'none of its own'}. *Site*: `{_site(fault)}`.")
    if scales := _scales(fault):
        yield from ("", "| severity | 1 | 2 | 3 | 4 | 5 |", "|---|---|---|---|---|---|")
        yield from (f"| `{name}` | {' | '.join(map(str, values))} |" for name, values in scales.items())
    for section in _PROSE:
        if section in parts:
            yield from ("", f"*{section}*: {parts[section]}")
