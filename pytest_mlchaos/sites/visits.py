"""Define sites in user code that no hook reaches: ``visit("queue.get", message)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from ..core.validation import NAME, check_arguments
from ..engine.controller import current

__all__ = ["pass_site", "visit"]

T = TypeVar("T")


# None is a payload too
def visit(site: str, payload: T = None, **attributes: object) -> T:  # type: ignore[assignment]
    """Visit the site ``site``. Return the payload: the same object unless a fault strikes there.

    The name is free, and faults name it as their ``site``. Outside of a chaos test this does
    nothing, so it may stay in production code.
    """
    return pass_site(check_name, site, payload, attributes)


@check_arguments("visit", site=NAME)
def check_name(site: str) -> None:
    """Raise BadArgument for an argument ``site`` of ``visit`` that is not a name."""


def pass_site(
    check: Callable[[str], None], site: str, payload: T, attributes: Mapping[str, object]
) -> T:
    """Do the same as ``visit``, and check the name only at its first visit of a trial."""
    controller = current()
    if controller is None or type(site) is not str or not controller.has_counter(site):
        check(site)
    if controller is None:
        return payload
    result: T = controller.visit(site, payload, attributes)
    return result
