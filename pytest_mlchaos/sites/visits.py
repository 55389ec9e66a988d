"""Define sites in user code that no hook reaches: ``visit("queue.get", message)``."""

from __future__ import annotations

from typing import TypeVar

from ..core.validation import NAME, check_arguments
from ..engine.controller import current

__all__ = ["visit"]

T = TypeVar("T")


@check_arguments("visit", site=NAME)
# None is a payload too
def visit(site: str, payload: T = None, **attributes: object) -> T:  # type: ignore[assignment]
    """Visit the site ``site``. Return the payload: the same object unless a fault strikes there.

    The name is free, and faults name it as their ``site``. Outside of a chaos test this does
    nothing, so it may stay in production code.
    """
    controller = current()
    if controller is None:
        return payload
    result: T = controller.visit(site, payload, attributes)
    return result
