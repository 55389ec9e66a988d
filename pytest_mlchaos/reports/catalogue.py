"""The catalogue of faults, from their docstrings: ``pytest --mlchaos-faults``."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap

from ..core.faults import FAULTS, Fault

__all__ = ["catalogue", "describe", "markdown", "sections"]

_COMMON = {field.name for field in dataclasses.fields(Fault)}
_SECTION = re.compile(r"^(Imitates|Fidelity|Source):\s*", re.MULTILINE)


def sections(fault: type[Fault]) -> dict[str, str]:
    """A fault's docstring in parts: ``summary``, ``details``, ``Imitates``, ``Fidelity``, ``Source``."""
    doc = inspect.cleandoc(fault.__doc__ or "")
    parts = _SECTION.split(doc)
    summary, _, details = parts[0].partition("\n\n")
    named = {name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return {"summary": " ".join(summary.split()), "details": " ".join(details.split()), **named}


def parameters(fault: type[Fault]) -> list[str]:
    """``phase='backward'``, … : what the fault takes beside the common keywords."""
    found = []
    for field in dataclasses.fields(fault):
        if field.name not in _COMMON:
            found.append(field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default!r}")
    return found


def describe(fault: type[Fault]) -> str:
    """One fault's entry."""
    parts = sections(fault)
    site = getattr(fault, "site", "")
    lines = [f"chaos.{fault.name}({', '.join(parameters(fault))})  -- {site if isinstance(site, str) else '...'}"]
    lines += textwrap.wrap(parts["summary"], 96, initial_indent="    ", subsequent_indent="    ")
    for name in ("Imitates", "Fidelity"):
        if name in parts:
            lines += textwrap.wrap(f"{name}: {parts[name]}", 96, initial_indent="    ", subsequent_indent="      ")
    return "\n".join(lines)


def catalogue() -> str:
    """Every registered fault."""
    head = "faults (chaos.<name>; each also takes at=, p=, times=, where=):"
    return "\n\n".join([head, *(describe(FAULTS[name]) for name in sorted(FAULTS))])


def markdown() -> str:
    """The catalogue as a page of the documentation."""
    lines = [
        "# Faults",
        "",
        "Generated from the docstrings by `python docs/make.py`. Each fault also takes `at`, `p`, `times` and `where`.",
    ]
    for name in sorted(FAULTS):
        fault = FAULTS[name]
        parts = sections(fault)
        site = getattr(fault, "site", "")
        lines += ["", f"## `chaos.{name}({', '.join(parameters(fault))})`", "", f"Site: `{site}`. {parts['summary']}"]
        if parts["details"]:
            lines += ["", parts["details"]]
        for section in ("Imitates", "Fidelity", "Source"):
            if section in parts:
                lines += ["", f"*{section}*: {parts[section]}"]
    return "\n".join(lines).replace("``", "`") + "\n"
