"""Dispatch modes that lie beneath the user's own, however those come and go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["beneath"]


@contextlib.contextmanager
def beneath(mode: Any) -> Iterator[Any]:
    """Keep ``mode`` at the bottom of this thread's stack of dispatch modes: a user's ``with`` that ends meanwhile pops its own mode."""
    from torch.utils import _python_dispatch as dispatch

    def above() -> list[Any]:
        """Everything down to ``mode`` (or to the bottom), taken off the stack, the highest first."""
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
