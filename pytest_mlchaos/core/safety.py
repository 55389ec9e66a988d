"""Refuse to inject faults into environments that look like production."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable

from ..errors import BadArgument, InjectionForbidden
from .validation import format_value

__all__ = ["PRODUCTION", "check_patterns", "refuse_production"]

PRODUCTION = ("ENV=prod*", "ENVIRONMENT=prod*", "APP_ENV=prod*", "DEPLOY_ENV=prod*")
"""Environment variables that mark production, as ``NAME=pattern``.

Upper and lower case are equal.
"""


def check_patterns(patterns: Iterable[str]) -> None:
    """Raise ``BadArgument`` for a pattern that is not ``NAME=pattern``.

    It would protect nothing.
    """
    for pattern in patterns:
        name, equals, _ = pattern.partition("=")
        if not equals or not name.strip():
            raise BadArgument(
                f"mlchaos_production: each pattern must be NAME=pattern, such as 'ENV=prod*', got "
                f"{format_value(pattern)}"
            )


def refuse_production(patterns: Iterable[str] = PRODUCTION) -> None:
    """Raise ``InjectionForbidden`` if faults are not allowed in this environment."""
    if os.environ.get("MLCHAOS_FORBID", "").lower() not in ("", "0", "false", "no"):
        raise InjectionForbidden(
            "faults are not allowed here: MLCHAOS_FORBID is set. Unset it, or run with "
            "--mlchaos-off"
        )
    patterns = list(patterns)
    check_patterns(patterns)
    for pattern in patterns:
        name, _, value = pattern.partition("=")
        found = os.environ.get(name.strip())
        if found is not None and fnmatch.fnmatch(found.lower(), value.strip().lower()):
            raise InjectionForbidden(
                f"this looks like production ({name.strip()} matches {pattern!r}), so no fault is "
                f"injected. "
                "Run with --mlchaos-off, or change the ini option mlchaos_production"
            )
