"""Look at what each thread is doing."""

from __future__ import annotations

import gc
import sys
import types

__all__ = ["thread_frames"]


def thread_frames() -> dict[int, types.FrameType]:
    """Return the frame of each thread, by its identifier.

    ``sys._current_frames`` holds a lock of the interpreter while it makes the dict. If that starts
    a garbage collection, which frees a ``threading.local``, Python 3.11 waits for this lock for
    ever (https://github.com/python/cpython/issues/106883).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if collects:
            gc.enable()
