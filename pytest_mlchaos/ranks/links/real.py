"""Decide if a world can have real networks, for faults with ``real=True``."""

from __future__ import annotations

import unittest
from collections.abc import Iterable

from ...core.faults import Fault
from ...errors import BadArgument
from .namespaces import why_no_namespaces

__all__ = ["check_real", "is_real"]


def is_real(fault: Fault) -> bool:
    """Return True if a fault disturbs links in the kernel."""
    return fault.on_links and getattr(fault, "real", False)


def check_real(name: str, faults: Iterable[Fault], *, is_elastic: bool) -> None:
    """Refuse other faults of links beside a real one, and skip the test without namespaces."""
    other = next((fault for fault in faults if fault.on_links and not is_real(fault)), None)
    if other is not None:
        raise BadArgument(
            f"{name}: real=True excludes {other.name} without real=True, whose proxies are not in "
            f"the networks of the ranks"
        )
    if is_elastic:
        raise BadArgument(f"{name}: real=True is not possible in a world with elastic=True")
    if why := why_no_namespaces():
        raise unittest.SkipTest(f"{name}(real=True): {why}")
