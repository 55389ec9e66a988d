"""Build the catalogue of faults from their docstrings, for the terminal and the documentation."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ..core.faults import FAULTS, Fault

__all__ = ["arguments", "catalogue", "describe", "layers", "markdown", "own_parameters", "sections"]

_COMMON = {field.name for field in dataclasses.fields(Fault)}
_SECTION = re.compile(r"^(Args|Imitates|Fidelity|Source|Example):\s*?(?: |\n)", re.MULTILINE)
_ARGUMENT = re.compile(r"^    (\w+): ", re.MULTILINE)
_PROSE = ("Imitates", "Fidelity", "Source")
WIDTH = 96
OTHERS = "Yours"


def sections(fault: type[Fault]) -> dict[str, str]:
    """Return the parts of a fault's docstring.

    They are ``summary``, ``details``, ``Imitates``, ``Fidelity``, ``Source``, and ``Example`` (a
    decorator).
    """
    doc = inspect.cleandoc(fault.__doc__ or "")
    parts = _SECTION.split(doc)
    summary, _, details = parts[0].partition("\n\n")
    named = {
        name: " ".join(text.split())
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
        if name != "Args"
    }
    if "Example" in named:
        named["Example"] = named["Example"].strip("`")
    return {"summary": " ".join(summary.split()), "details": " ".join(details.split()), **named}


def arguments(fault: type[Fault]) -> dict[str, str]:
    """Return the text about each parameter from the ``Args:`` of the fault and its base classes."""
    found: dict[str, str] = {}
    for cls in reversed(fault.__mro__):
        parts = _SECTION.split(inspect.cleandoc(vars(cls).get("__doc__") or ""))
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name == "Args":
                entries = _ARGUMENT.split("\n" + text.rstrip())
                found |= {
                    key: " ".join(entry.split())
                    for key, entry in zip(entries[1::2], entries[2::2], strict=True)
                }
    return found


def own_parameters(fault: type[Fault]) -> dict[str, str | None]:
    """Return the fault's own parameters with their defaults. None means that it is required."""
    own = {field.name: field for field in dataclasses.fields(fault) if field.name not in _COMMON}
    if not _scales(fault):
        own.pop("severity", None)  # the fault refuses it
    return {
        name: None if field.default is dataclasses.MISSING else repr(field.default)
        for name, field in own.items()
    }


def parameters(fault: type[Fault]) -> list[str]:
    """Return the fault's own parameters as text, for example ``phase='backward'``."""
    return [
        name if default is None else f"{name}={default}"
        for name, default in own_parameters(fault).items()
    ]


def layers() -> dict[str, list[type[Fault]]]:
    """Return the registered faults by layer, as the ``LAYER`` of their modules names it.

    Faults of modules without a ``LAYER`` come last.
    """
    found: dict[str, list[type[Fault]]] = {}
    for fault in sorted(FAULTS.values(), key=lambda fault: fault.name):
        found.setdefault(getattr(sys.modules.get(fault.__module__), "LAYER", OTHERS), []).append(
            fault
        )
    return dict(sorted(found.items(), key=lambda item: (item[0] == OTHERS, item[0])))


def _site(fault: type[Fault]) -> str:
    site = getattr(fault, "site", "")
    return site if isinstance(site, str) else "as its parameters say"


def _scales(fault: type[Fault]) -> Mapping[str, tuple[Any, ...]]:
    """Return the values that the severities 1 to 5 stand for."""
    scales: Mapping[str, tuple[Any, ...]] = getattr(fault, "scales", {})
    return scales


def describe(fault: type[Fault]) -> str:
    """Return the entry of one fault."""
    parts = sections(fault)
    lines = [f"chaos.{fault.name}({', '.join(parameters(fault))})  -- {_site(fault)}"]
    lines += textwrap.wrap(parts["summary"], WIDTH, initial_indent="    ", subsequent_indent="    ")
    for name in ("Imitates", "Fidelity"):
        if name in parts:
            lines += textwrap.wrap(
                f"{name}: {parts[name]}", WIDTH, initial_indent="    ", subsequent_indent="      "
            )
    for name, values in _scales(fault).items():
        lines.append(f"    severity 1 to 5: {name} {', '.join(map(str, values))}")
    if "Example" in parts:
        lines.append(f"    {parts['Example']}")
    return "\n".join(lines)


def catalogue() -> str:
    """Return the text of all registered faults."""
    head = "faults (chaos.<name>; each also takes at=, p=, times=, where=):"
    return "\n\n".join(
        [
            head,
            *(
                "\n\n".join([f"{layer}:", *map(describe, faults)])
                for layer, faults in layers().items()
            ),
        ]
    )


def markdown() -> str:
    """Return the catalogue as a page of the documentation."""
    lines = [
        "# Faults",
        "",
        "Generated from the docstrings by `python docs/make.py`.",
        "`pytest --mlchaos-faults` prints it, with your own faults.",
        "",
        "Each fault also takes `at`, `p`, `times`, `where` and `rank`, which the "
        "[options](options.md) explain.",
        "Severity 1 is barely noticeable, and 5 is extreme.",
    ]
    for layer, faults in layers().items():
        lines += [
            "",
            f"## {layer}",
            "",
            *(
                f"- [`{fault.name}`](#chaos{fault.name}): {sections(fault)['summary']}"
                for fault in faults
            ),
        ]
        for fault in faults:
            lines += _entry(fault)
    return re.sub(r"(?<!`)``(?!`)", "`", "\n".join(lines)) + "\n"


def _entry(fault: type[Fault]) -> Iterator[str]:
    parts, texts = sections(fault), arguments(fault)
    yield from ("", f"### `chaos.{fault.name}`", "", parts["summary"])
    if "Example" in parts:
        yield from ("", "```text", parts["Example"], "```")
    if parts["details"]:
        yield from ("", parts["details"])
    yield from ("", f"*Site*: `{_site(fault)}`.")
    if own := own_parameters(fault):
        yield from ("", "*Parameters*:", "")
        for name, default in own.items():
            yield f"- `{name}` ({'required' if default is None else f'default `{default}`'}): {texts.get(name, '')}".rstrip(
                ": "
            )
    if scales := _scales(fault):
        yield from ("", "| severity | 1 | 2 | 3 | 4 | 5 |", "|---|---|---|---|---|---|")
        yield from (
            f"| `{name}` | {' | '.join(map(str, values))} |" for name, values in scales.items()
        )
    for section in _PROSE:
        if section in parts:
            yield from ("", f"*{section}*: {parts[section]}")
