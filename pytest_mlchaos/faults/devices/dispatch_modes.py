"""Keep a dispatch mode below those of the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["beneath"]


@contextlib.contextmanager
def beneath(mode: object) -> Iterator[Any]:
    """Keep ``mode`` at the bottom of this thread's stack of dispatch modes.

    A user's ``with`` that ends in between must remove its own mode, not this one.
    """
    from torch.utils import _python_dispatch as dispatch

    def above() -> list[Any]:
        """Remove all modes down to ``mode`` (or to the bottom) from the stack, and return them top
        first.
        """
        taken = []
        while dispatch._len_torch_dispatch_stack():
            top = dispatch._pop_mode()
            if top is mode:
                break
            taken.append(top)
        return taken

    def put_back(taken: list[Any]) -> None:
        for other in reversed(taken):
            dispatch._push_mode(other)

    others = above()
    dispatch._push_mode(mode)
    put_back(others)
    try:
        yield mode
    finally:
        put_back(above())
