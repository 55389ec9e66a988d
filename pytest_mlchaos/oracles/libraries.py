"""Import the libraries of the extra ``stats`` when an oracle needs them."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtra

__all__ = ["scipy_module"]


def scipy_module(name: str, needed_by: str) -> Any:
    """Return a module of SciPy, for example ``"stats"``.

    Args:
        name: The name of the module in the package.
        needed_by: The call that needs it, for the message.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    try:
        return importlib.import_module(f"scipy.{name}")
    except ModuleNotFoundError:
        raise MissingExtra(needed_by, "scipy", "stats") from None
